"""The official anthropic SDK: messages, streams, its tool runner, thinking that is left out, and returned objects."""

import sys

import anthropic

TOOL = {
    "name": "add",
    "description": "adds",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
BASE = {"model": "q", "max_tokens": 2000}


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def result(use: object, text: str) -> dict[str, object]:
    return user([{"type": "tool_result", "tool_use_id": use.id, "content": text}])


def main(url: str, *behind: str) -> None:
    """`behind` is what stands in between, if anything does."""
    client = anthropic.Anthropic(base_url=url, api_key="any", max_retries=0)
    history = [user('CALL add {"a": 1}\nSAY four')]
    for thinking in ({"type": "adaptive"}, {"type": "enabled", "budget_tokens": 1024}, {"type": "disabled"}):
        first = client.messages.create(**BASE, messages=history, tools=[TOOL], thinking=thinking)
        use = first.content[-1]
        assert use.input == {"a": 1}, first
        turns = [*history, {"role": "assistant", "content": first.content}, result(use, "2")]
        second = client.messages.create(**BASE, messages=turns, tools=[TOOL], thinking=thinking)
        assert second.content[-1].text == "four", second
    assert client.messages.count_tokens(model="q", messages=history, thinking={"type": "adaptive"}).input_tokens > 0

    hidden = {"type": "adaptive", "display": "omitted"}
    with client.messages.stream(**BASE, messages=history, tools=[TOOL], thinking=hidden) as stream:
        final = stream.get_final_message()
    print("omitted:", [(block.type, bool(getattr(block, "signature", ""))) for block in final.content])
    turns = [*history, {"role": "assistant", "content": final.content}, result(final.content[-1], "2")]
    assert client.messages.create(**BASE, messages=turns, tools=[TOOL]).content[-1].text == "four"

    prefilled = client.messages.create(
        **BASE, messages=[user("SAY x"), {"role": "assistant", "content": "The answer is"}]
    )
    print("prefilled:", prefilled.content)

    if behind == ("litellm",):  # it drops `thread`, so that the runner sends its last turn alone
        print("ok")
        return

    @anthropic.beta_tool
    def add(a: int) -> str:
        """Adds.

        Args:
            a: a number
        """
        return str(a + 1)

    runner = client.beta.messages.tool_runner(**BASE, messages=[user('CALL add {"a": 6}\nSAY seven')], tools=[add])
    assert runner.until_done().content[-1].text == "seven"
    print("ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
