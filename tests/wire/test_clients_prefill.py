"""A reply that goes on from the client's own words, on chat and on messages."""

import json
from typing import Any

import pytest

from tests.wire.conversations import CONFIG, USER, Asked, ask, message

CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}
HALF = {"role": "assistant", "content": "The answer is"}


def told(seen: Asked) -> tuple[str, str]:
    """The thinking and the answer of a reply."""
    assert seen.status == 200, seen.text
    body = json.loads(seen.text)
    if "choices" in body:
        said = body["choices"][0]["message"]
        return said.get("reasoning_content") or "", said["content"] or ""
    texts = {"thinking": "", "text": ""}
    for block in body["content"]:
        texts[block["type"]] += block[block["type"]]
    return texts["thinking"], texts["text"]


def continued(turn: dict[str, Any], reply: str, **fields: Any) -> Asked:
    body = {"messages": [USER, turn], **CONTINUED, **fields}
    return ask("/v1/chat/completions", body, config=CONFIG, whole=reply)


def test_behind_half_an_answer_nothing_is_forced_and_nothing_thought():
    for seen in (continued(HALF, " 391."), ask(*message(USER, HALF), whole=" 391.")):
        assert seen.rendered == "[user]hi[assistant]The answer is"
        assert told(seen) == ("", " 391.")


def test_behind_a_thought_that_is_closed_the_answer_follows():
    seen = continued({"role": "assistant", "content": "<think>17*23=391.</think>"}, "It is 391.")
    assert seen.rendered.replace("\n", "") == "[user]hi[assistant]<think>17*23=391.</think>"
    assert told(seen) == ("", "It is 391.")


@pytest.mark.parametrize(
    "turn", [{"role": "assistant", "content": "<think>\n17*23"}, {"role": "assistant", "reasoning_content": "17*23"}]
)
def test_behind_a_thought_that_is_open_the_thinking_goes_on(turn):
    seen = continued(turn, "=391.</think>It is.")
    assert seen.rendered == "[user]hi[assistant]<think>\n17*23"
    assert told(seen) == ("=391.", "It is.")


def test_a_thinking_block_that_ends_a_message_goes_on():
    turn = {"role": "assistant", "content": [{"type": "thinking", "thinking": "17*23", "signature": "x"}]}
    seen = ask(*message(USER, turn), whole="=391.</think>It is.")
    assert seen.rendered == "[user]hi[assistant]<think>\n17*23"
    assert told(seen) == ("=391.", "It is.")


def test_a_turn_that_waits_for_its_tools_does_not_go_on():
    use = {"type": "tool_use", "id": "t", "name": "find", "input": {}}
    seen = ask(*message(USER, {"role": "assistant", "content": [use]}))
    assert seen.rendered.endswith("[assistant]<think>\n")


def test_an_assistants_last_turn_in_chat_is_over_unless_the_client_says_otherwise():
    seen = ask("/v1/chat/completions", {"messages": [USER, HALF]})
    assert seen.rendered.startswith("[user]hi[assistant]The answer is[assistant]")
