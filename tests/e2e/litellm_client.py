"""Run in an environment that has LiteLLM and nothing of ours: asks a server at argv[1], prints what LiteLLM read."""

import asyncio
import json
import sys

import litellm

litellm.suppress_debug_info = True
URL = f"{sys.argv[1]}/v1"
MESSAGES = [{"role": "user", "content": "what is 2+2?"}]


def arguments(provider, **more):
    return {"model": f"{provider}/demo", "api_base": URL, "api_key": "any", "messages": MESSAGES, "timeout": 30, **more}


def whole(provider):
    reply = litellm.completion(**arguments(provider))
    message = reply.choices[0].message
    return {
        "answer": message.content,
        "reasoning": message.reasoning_content,
        "finish_reason": reply.choices[0].finish_reason,
        "usage": reply.usage.model_dump(exclude_none=True),
    }


def streamed(provider):
    stream = litellm.completion(**arguments(provider, stream=True, stream_options={"include_usage": True}))
    return read(list(stream))


async def asynchronous(provider):
    stream = await litellm.acompletion(**arguments(provider, stream=True, stream_options={"include_usage": True}))
    return read([chunk async for chunk in stream])


def read(chunks):
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    usages = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    return {
        "answer": "".join(delta.content or "" for delta in deltas),
        "reasoning": "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas),
        "chunks_of_reasoning": sum(bool(getattr(delta, "reasoning_content", None)) for delta in deltas),
        "finish_reasons": [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason],
        "usage": usages[-1].model_dump(exclude_none=True),
    }


def refused(provider):
    try:
        litellm.completion(**arguments(provider, temperature=9))
    except litellm.BadRequestError as error:
        return str(error)
    return "not refused"


def main():
    said = {
        provider: {
            "whole": whole(provider),
            "streamed": streamed(provider),
            "asynchronous": asyncio.run(asynchronous(provider)),
            "refused": refused(provider),
        }
        for provider in ("hosted_vllm", "openai")
    }
    print(json.dumps(said, indent=1))


main()
