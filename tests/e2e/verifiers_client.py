"""Run in an environment that has verifiers and nothing of ours: lets its reference judge ask a server at argv[1]."""

import asyncio
import json
import sys

from openai import OpenAIError
from verifiers.v1.judges.reference import ReferenceJudge, ReferenceJudgeConfig

QUESTION = "Which number is larger, 3 or 8?"


def judge(model="judge", key="JUDGE_KEY", **settings):
    return ReferenceJudge(ReferenceJudgeConfig(base_url=f"{sys.argv[1]}/v1", api_key_var=key, model=model, **settings))


async def reward(judge, reply):
    positive, negative = judge.config.choices
    said = await judge.evaluate(question=QUESTION, answer="8", response=reply, positive=positive, negative=negative)
    return said.parsed


async def refused(judge):
    try:
        await reward(judge, "8")
    except OpenAIError as error:
        return error.status_code
    return None


async def main():
    worded, lettered = judge(), judge(choices=("A", "B"))
    return {
        "worded": await asyncio.gather(*(reward(worded, reply) for reply in ("8", "3", "8"))),
        "lettered": await asyncio.gather(*(reward(lettered, reply) for reply in ("8", "3"))),
        "wrong key": await refused(judge(key="WRONG_KEY")),
        "wrong model": await refused(judge(model="nobody")),
    }


print(json.dumps(asyncio.run(main())))
