"""LiteLLM's proxy in front of the server, asked by the openai SDK as `openai_sdk` asks the server itself."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import openai
from openai_sdk import TOOL, chat, user

CONFIG = """
model_list:
  - model_name: q
    litellm_params: {model: hosted_vllm/q, api_base: URL/v1, api_key: any}
"""


def main(url: str, port: int = 4719) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG.replace("URL", url))
        command = [
            Path(sys.executable).parent / "litellm",
            "--config",
            config,
            "--port",
            str(port),
            "--host",
            "127.0.0.1",
        ]
        proxy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            base = f"http://127.0.0.1:{port}"
            _wait(base, proxy)
            client = openai.OpenAI(base_url=f"{base}/v1", api_key="any", max_retries=0)
            chat(client)
            _responses(client)
        finally:
            proxy.terminate()
            proxy.wait(30)
    print("ok")


def _wait(base: str, proxy: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and proxy.poll() is None:
        try:
            if httpx.get(f"{base}/health/liveliness", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise RuntimeError("the proxy did not start")


def _responses(client: openai.OpenAI) -> None:
    tool = {"type": "function", **TOOL["function"]}
    items: list = [user('CALL add {"a": 1}\nSAY four')]
    first = client.responses.create(model="q", input=items, tools=[tool])
    call = next(item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "2"}
    second = client.responses.create(model="q", input=[*items, *first.output, result], tools=[tool])
    assert second.output_text == "four", second


if __name__ == "__main__":
    main(sys.argv[1])
