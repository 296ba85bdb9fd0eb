"""The example in `docs/examples`: TRL's GRPOTrainer learns from this server's rewards, by a real socket, with a key."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from server.config.load import parse_config
from server.serve import build_server
from tests.server.conftest import ROOT
from tests.server.judges import JUDGE, JudgeServer
from tests.server.test_serve import running

EXAMPLE = Path(__file__).parents[2] / "docs/examples/trl_rewards.py"
KEY = "rsk-trl"


@pytest.fixture
def example() -> Any:
    spec = importlib.util.spec_from_file_location("trl_rewards", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def more_letters(first: str, second: str) -> str:
    """A judge that likes letters."""
    letters = [sum(character.isalpha() for character in text) for text in (first, second)]
    return f"<no_think>\\boxed{{Assistant {1 if letters[0] > letters[1] else 2}}}</no_think>"


@pytest.fixture
def judge(tokenizer, run, monkeypatch):
    """A judge behind a key on the loopback, in the session's own loop."""
    monkeypatch.setenv("REASOND_API_KEYS", KEY)
    server = JudgeServer(tokenizer, more_letters)
    serving = running(build_server(parse_config("[server]\nport = 0\n" + JUDGE, ROOT), server.app))
    monkeypatch.setenv("REASOND_URL", run(serving.__aenter__()))
    monkeypatch.setenv("REASOND_API_KEY", KEY)
    yield server
    run(serving.__aexit__(None, None, None))


def micro_model(tokenizer) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=64,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def test_grpo_trains_a_few_steps_on_rewards_from_the_server(example, judge, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained("demo/tokenizer")
    model = micro_model(tokenizer)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    questions = [{"prompt": [{"role": "user", "content": f"What is {i} + 1?"}]} for i in range(6)]
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=example.reasond_reward,
        args=GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=3,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=8,
            learning_rate=1e-2,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list(questions),
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logs) == 3
    assert all(entry["reward"] == pytest.approx(0.5, abs=0.01) for entry in logs), "a group's mean chance is one half"
    assert any(entry["reward_std"] > 0 for entry in logs)
    assert any(not torch.equal(before[name], weight) for name, weight in model.named_parameters())
    assert judge.metric("judge_comparisons_total") == 3 * 2 * 6


def test_a_completion_that_could_not_be_judged_has_no_reward_and_a_reference_is_passed_on(example, judge):
    rewards = example.reasond_reward(["q", "q", "r"], ["aa", "a", "b"])
    assert rewards[0] > rewards[1]
    assert rewards[2] is None, "one reply alone has nothing to be judged by"
    assert example.reasond_reward(["q", "q"], ["5", "6"], answer=["5", "5"]) == [1.0, 0.0]
