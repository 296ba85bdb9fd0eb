"""The official openai SDK: chat and responses, streamed, tools, structured, and second turns from returned objects."""

import sys

import openai
from pydantic import BaseModel


class Sum(BaseModel):
    total: int


TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def main(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    chat(client)
    responses(client)
    print("ok")


def chat(client: openai.OpenAI) -> None:
    history = [user('CALL add {"a": 1}\nSAY four')]
    first = client.chat.completions.create(model="q", messages=history, tools=[TOOL])
    message = first.choices[0].message
    call = message.tool_calls[0]
    assert call.function.arguments == '{"a": 1}', call
    history += [message, {"role": "tool", "tool_call_id": call.id, "content": "2"}]
    second = client.chat.completions.create(model="q", messages=history, tools=[TOOL])
    assert second.choices[0].message.content == "four", second

    parsed = client.chat.completions.parse(model="q", messages=[user('JSON {"total": 4}')], response_format=Sum)
    assert parsed.choices[0].message.parsed.total == 4
    again = client.chat.completions.create(
        model="q", messages=[user("x"), parsed.choices[0].message, user("SAY after parse")]
    )
    assert again.choices[0].message.content == "after parse"

    called = client.chat.completions.parse(model="q", messages=[user('CALL add {"a": 2}\nSAY five')], tools=[TOOL])
    message = called.choices[0].message
    assert message.tool_calls[0].function.parsed_arguments == {"a": 2}
    turns = [user('CALL add {"a": 2}\nSAY five'), message, {"role": "tool", "tool_call_id": "c", "content": "3"}]
    assert client.chat.completions.create(model="q", messages=turns, tools=[TOOL]).choices[0].message.content == "five"

    with client.chat.completions.stream(model="q", messages=[user('CALL add {"a": 3}')], tools=[TOOL]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion().choices[0].message
    assert final.tool_calls[0].function.arguments == '{"a": 3}'
    turns = [user('CALL add {"a": 3}\nSAY six'), final, {"role": "tool", "tool_call_id": "c", "content": "3"}]
    assert client.chat.completions.create(model="q", messages=turns).choices[0].message.content == "six"


def responses(client: openai.OpenAI) -> None:
    tool = {"type": "function", **TOOL["function"]}
    items: list = [user('CALL add {"a": 1}\nSAY four')]
    first = client.responses.create(model="q", input=items, tools=[tool])
    call = next(item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "2"}
    second = client.responses.create(model="q", input=[*items, *first.output, result], tools=[tool])
    assert second.output_text == "four", second
    kept = client.responses.create(model="q", previous_response_id=first.id, input=[result], tools=[tool])
    assert kept.output_text == "four", kept
    references = [{"type": "item_reference", "id": item.id} for item in first.output]
    referred = client.responses.create(model="q", input=[*items, *references, result], tools=[tool])
    assert referred.output_text == "four", referred

    parsed = client.responses.parse(model="q", input=[user('JSON {"total": 4}')], text_format=Sum)
    assert parsed.output_parsed.total == 4
    again = client.responses.create(model="q", input=[user("x"), *parsed.output, user("SAY after parse")])
    assert again.output_text == "after parse"

    patch = {"type": "custom", "name": "patch", "description": "patches"}
    text = 'CALL patch {"input": "a </think> \\"b\\"\\n"}'
    with client.responses.stream(model="q", input=[user(text)], tools=[patch]) as stream:
        deltas = [event.delta for event in stream if event.type == "response.custom_tool_call_input.delta"]
        final = stream.get_final_response()
    call = next(item for item in final.output if item.type == "custom_tool_call")
    assert call.input == 'a </think> "b"\n' == "".join(deltas), (call, deltas)
    output = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "done"}
    back = client.responses.create(
        model="q", input=[user(text + "\nSAY patched"), *final.output, output], tools=[patch]
    )
    assert back.output_text == "patched", back


if __name__ == "__main__":
    main(sys.argv[1])
