"""A reward function for verl that asks a reasond judge.

    REASOND_URL=http://127.0.0.1:8000 REASOND_API_KEY=rsk-… python -m verl.trainer.main_ppo … \
        reward.custom_reward_function.path=docs/examples/verl_reward.py

The reply is held against the data set's `ground_truth`. verl hands a reward function no prompt: the question is taken
from the column `extra_info`, where verl's own data sets keep it.
"""

import asyncio
import os
from typing import Any

import httpx

TIMEOUT = 600.0  # a judge that thinks takes its time
TRIES, PAUSE = 5, 1.0  # a full queue, or a judge that came to no verdict: later it may be otherwise


async def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, **_: Any
) -> float:
    """The reward of one reply, between 0 and 1."""
    body = {"prompt": (extra_info or {}).get("question", ""), "response": solution_str, "label": ground_truth}
    key = os.environ.get("REASOND_API_KEY", "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=os.environ["REASOND_URL"], headers=headers, timeout=TIMEOUT) as client:
        for attempt in range(TRIES):
            response = await client.post("/reward", json=body)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            await asyncio.sleep(PAUSE * 2**attempt)
    response.raise_for_status()
    return float(response.json())
