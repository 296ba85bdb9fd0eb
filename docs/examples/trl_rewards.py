"""Train a policy with TRL's GRPOTrainer on rewards from a reasond judge.

    REASOND_URL=http://127.0.0.1:8000 REASOND_API_KEY=rsk-… python docs/examples/trl_rewards.py MODEL

Replies to one prompt are judged against each other. Where the data set has a column `answer`, each reply is held
against it instead.
"""

import os
import sys
from itertools import groupby
from typing import Any

import httpx

TIMEOUT = 600.0  # a judge that thinks takes its time


def text_of(turns: Any) -> str:
    """TRL gives plain text, or messages."""
    return turns if isinstance(turns, str) else "\n\n".join(turn["content"] for turn in turns)


def reasond_reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
    """One reward between 0 and 1 a completion; None where the judge came to no verdict, which TRL leaves out."""
    answers = columns.get("answer") or [None] * len(prompts)
    rows = [(text_of(prompt), answer) for prompt, answer in zip(prompts, answers, strict=True)]
    items: list[dict[str, Any]] = []
    for (query, answer), group in groupby(range(len(rows)), key=lambda i: rows[i]):
        item = {"query": query, "replies": [text_of(completions[i]) for i in group]}
        items.append(item if answer is None else {**item, "reference": str(answer)})
    key = os.environ.get("REASOND_API_KEY", "")
    response = httpx.post(
        os.environ["REASOND_URL"] + "/v1/rewards/score",
        json={"items": items, "votes": 1},
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=TIMEOUT,
    )
    response.raise_for_status()
    rewards: list[float | None] = []
    for item, result in zip(items, response.json()["results"], strict=True):
        rewards += result["scores"] if "scores" in result else [None] * len(item["replies"])
    return rewards


def main(model: str) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    questions = [f"What is {a} + {b}?" for a in range(10) for b in range(10)]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reasond_reward,
        args=GRPOConfig(output_dir="trl-rewards", num_generations=8, report_to="none"),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in questions]),
    )
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1])
