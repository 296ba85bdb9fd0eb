"""LiteLLM, in an environment of its own (it pins versions that a shared one would be downgraded to)."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.environments import environment
from tests.wire.served import ANSWER, THINKING, THOUGHT, served

pytestmark = pytest.mark.accept

LITELLM = "litellm>=1.100,<2"
HERE = Path(__file__).parent
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}


@pytest.fixture(scope="session")
def python() -> Path:
    return environment("litellm", [LITELLM]) / "python"


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
