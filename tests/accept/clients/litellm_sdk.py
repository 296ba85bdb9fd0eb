"""LiteLLM's SDK: its own message objects appended to the history, on three providers."""

import sys

import litellm

TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}


def main(url: str) -> None:
    for model, base in (("hosted_vllm/q", f"{url}/v1"), ("openai/q", f"{url}/v1"), ("anthropic/q", url)):
        options = {"model": model, "api_base": base, "api_key": "any", "max_tokens": 2000, "num_retries": 0}
        history = [{"role": "user", "content": 'CALL add {"a": 1}\nSAY four'}]
        first = litellm.completion(**options, messages=history, tools=[TOOL])
        message = first.choices[0].message
        assert message.tool_calls[0].function.name == "add", first
        history += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "2"}]
        second = litellm.completion(**options, messages=history, tools=[TOOL])
        assert second.choices[0].message.content == "four", second
        history += [second.choices[0].message, {"role": "user", "content": "SAY five"}]
        third = "".join(
            chunk.choices[0].delta.content or ""
            for chunk in litellm.completion(**options, messages=history, tools=[TOOL], stream=True)
        )
        assert third == "five", (model, third)
        print(model, "thinking:", bool(getattr(message, "reasoning_content", None)))
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1])
