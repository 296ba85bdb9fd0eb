"""Run in an environment that has LiteLLM and nothing of ours: tools, formats and budgets through every API that LiteLLM
speaks, at a server at argv[1]. Prints what it read."""

import json
import sys

import litellm

litellm.suppress_debug_info = True
litellm.drop_params = False
URL = sys.argv[1]
MESSAGES = [{"role": "user", "content": "what is 2+2?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "add", "description": "adds", "parameters": SCHEMA}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
BUDGETS = {
    "thinking_token_budget": {"extra_body": {"thinking_token_budget": 3}},
    "reasond": {"extra_body": {"reasond": {"budget": 3}}},
    "reasoning.max_tokens": {"extra_body": {"reasoning": {"max_tokens": 3}}},
    "reasoning_effort": {"reasoning_effort": "low"},
}


def chat(provider, **more):
    base = {"api_base": f"{URL}/v1", "api_key": "any", "messages": MESSAGES, "timeout": 30}
    return litellm.completion(model=f"{provider}/demo", **{**base, **more})


def calls_of(message):
    return [[call.function.name, json.loads(call.function.arguments)] for call in message.tool_calls or ()]


def thought(reply):
    return reply.usage.completion_tokens_details.reasoning_tokens


def openai_like(provider):
    chunks = list(chat(provider, tools=[TOOL], stream=True))
    whole = litellm.stream_chunk_builder(chunks, messages=MESSAGES).choices[0].message
    called = chat(provider, tools=[TOOL]).choices[0]
    return {
        "called": calls_of(called.message),
        "finish_reason": called.finish_reason,
        "streamed": calls_of(whole),
        "formatted": json.loads(chat(provider, response_format=FORMAT).choices[0].message.content),
        "budgets": {name: thought(chat(provider, **asked)) for name, asked in BUDGETS.items()},
    }


def responses():
    asked = {"model": "openai/demo", "api_base": f"{URL}/v1", "api_key": "any", "input": "2+2?", "timeout": 30}
    reply = litellm.responses(**asked, extra_body={"thinking_token_budget": 3})
    kinds = [item.type for item in reply.output]
    streamed = [event.type for event in litellm.responses(**asked, stream=True)]
    return {
        "kinds": kinds,
        "thought": reply.usage.output_tokens_details.reasoning_tokens,
        "ends": streamed[-1],
        "deltas": sum(kind == "response.output_text.delta" for kind in streamed),
    }


def anthropic():
    asked = {"model": "anthropic/demo", "api_base": URL, "api_key": "any", "messages": MESSAGES, "timeout": 30}
    budget = {"thinking": {"type": "enabled", "budget_tokens": 3}, "allowed_openai_params": ["thinking"]}
    reply = litellm.completion(**asked, max_tokens=200, **budget)
    chunks = list(litellm.completion(**asked, max_tokens=200, stream=True, **budget))
    return {
        "answer": reply.choices[0].message.content,
        "reasoning": reply.choices[0].message.reasoning_content,
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
        "called": calls_of(litellm.completion(**asked, max_tokens=200, tools=[TOOL]).choices[0].message),
    }


print(
    json.dumps(
        {
            "hosted_vllm": openai_like("hosted_vllm"),
            "openai": openai_like("openai"),
            "responses": responses(),
            "anthropic": anthropic(),
        },
        indent=1,
    )
)
