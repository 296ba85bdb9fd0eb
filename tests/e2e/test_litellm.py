"""LiteLLM, in an environment of its own (it pins versions that a shared one would be downgraded to)."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from models.engines.base import Prompt, Sampling
from models.engines.scripted import Line
from tests.e2e.environments import environment
from tests.wire.served import ANSWER, SETTINGS, THINKING, THOUGHT, served

pytestmark = pytest.mark.accept

LITELLM = ("litellm>=1.100,<2", "mcp>=1.20")  # it imports mcp where there are tools
HERE = Path(__file__).parent
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}


@pytest.fixture(scope="session")
def python() -> Path:
    return environment("litellm", LITELLM) / "python"


def test_litellm_reads_answer_reasoning_and_usage_streamed_and_not(python, tokenizer, monkeypatch):
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    with served(tokenizer, [THINKING], token_delay=0.01) as server:
        command = [python, HERE / "litellm_client.py", server.url]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | OFFLINE)
        assert ran.returncode == 0, ran.stderr
        print(ran.stdout)
        assert server.until_idle() == 0
    thought = len(tokenizer.encode(THOUGHT))
    for provider, said in json.loads(ran.stdout).items():
        for way in ("whole", "streamed", "asynchronous"):
            seen = said[way]
            assert (seen["answer"], seen["reasoning"]) == (ANSWER, THOUGHT), (provider, way)
            assert seen["usage"]["completion_tokens_details"]["reasoning_tokens"] == thought
            assert seen["usage"]["total_tokens"] > seen["usage"]["completion_tokens"] > thought
        assert said["whole"]["finish_reason"] == "stop"
        assert said["streamed"]["finish_reasons"] == ["stop"]
        assert said["streamed"]["chunks_of_reasoning"] > 3
        assert "temperature" in said["refused"]


def test_litellm_calls_tools_keeps_formats_and_sets_budgets_on_every_api(python, tokenizer, monkeypatch):
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        said = tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        answer = call if "add" in said else '{"a": 4}'
        begun = said.rpartition("assistant\n")[2]
        thinking = ("" if begun else "<think>") + "1+1=2 " * 9 + "</think>"
        return answer if "</think>" in begun else thinking + answer

    settings = SETTINGS.replace('family = "lhrm"\n', 'family = "lhrm"\nbudgets = { efforts = { low = 3 } }\n', 1)
    with served(tokenizer, script, settings) as server:
        command = [python, HERE / "litellm_budgets.py", server.url]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | OFFLINE)
        assert ran.returncode == 0, ran.stderr
        print(ran.stdout)
    said = json.loads(ran.stdout)
    for provider in ("hosted_vllm", "openai"):
        seen = said[provider]
        assert seen["called"] == seen["streamed"] == [["add", {"a": 1}]]
        assert seen["finish_reason"] == "tool_calls"
        assert seen["formatted"] == {"a": 4}
        assert set(seen["budgets"].values()) == {3}, seen["budgets"]
    assert said["responses"]["kinds"] == ["reasoning", "message"]
    assert (said["responses"]["thought"], said["responses"]["ends"]) == (3, "response.completed")
    assert said["responses"]["deltas"] > 1
    assert said["anthropic"]["called"] == [["add", {"a": 1}]]
    assert said["anthropic"]["answer"] == said["anthropic"]["streamed"] == '{"a": 4}'
    assert said["anthropic"]["reasoning"] == "1+1"
