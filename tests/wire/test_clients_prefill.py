"""A reply that goes on from the client's own words, on chat and on messages."""

import pytest

from tests.wire.conversations import USER, chat, message

CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}
HALF = {"role": "assistant", "content": "The answer is"}


def continued(turn, **fields):
    return chat(USER, turn, **CONTINUED, **fields)


@pytest.mark.parametrize(("path", "body"), [continued(HALF), message(USER, HALF)])
def test_behind_half_an_answer_nothing_is_forced_and_nothing_thought(asks, path, body):
    seen = asks(path, body, whole=" 391.")
    assert seen.rendered == "[user]hi[assistant]The answer is"
    assert seen.texts == ("", " 391.")


def test_behind_a_thought_that_is_closed_the_answer_follows(asks):
    turn = {"role": "assistant", "content": "<think>17*23=391.</think>"}
    seen = asks(*continued(turn), whole="It is 391.")
    assert seen.rendered.replace("\n", "") == "[user]hi[assistant]<think>17*23=391.</think>"
    assert seen.texts == ("", "It is 391.")


BLOCK = {"type": "thinking", "thinking": "17*23", "signature": "x"}
OPEN = [
    continued({"role": "assistant", "content": "<think>\n17*23"}),
    continued({"role": "assistant", "reasoning_content": "17*23"}),
    message(USER, {"role": "assistant", "content": [BLOCK]}),
]


@pytest.mark.parametrize(("path", "body"), OPEN)
def test_behind_a_thought_that_is_open_the_thinking_goes_on(asks, path, body):
    seen = asks(path, body, whole="=391.</think>It is.")
    assert seen.rendered == "[user]hi[assistant]<think>\n17*23"
    assert seen.texts == ("=391.", "It is.")


@pytest.mark.parametrize(("path", "body"), OPEN)
def test_a_budget_counts_a_thought_that_goes_on(asks, path, body):
    said = iter(["=1=2=3=4=5=6", "It is."])
    asked = {**body, "thinking_token_budget": 4, "reasond": {"cut": "hard"}}
    seen = asks(path, asked, reply=lambda begun: next(said))
    assert seen.texts == ("=1=2", "It is.")
    assert seen.records[-1]["budget"]["used"] == 4


def test_a_turn_that_waits_for_its_tools_does_not_go_on(asks):
    use = {"type": "tool_use", "id": "t", "name": "find", "input": {}}
    seen = asks(*message(USER, {"role": "assistant", "content": [use]}))
    assert seen.rendered.endswith("[assistant]<think>\n")


def test_nothing_goes_on_behind_a_call(asks):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    refused = asks(*continued({"role": "assistant", "content": "x", "tool_calls": [call]})).error
    assert "continue_final_message" in refused["message"]


def test_an_assistants_last_turn_in_chat_is_over_unless_the_client_says_otherwise(asks):
    seen = asks(*chat(USER, HALF))
    assert seen.rendered.startswith("[user]hi[assistant]The answer is[assistant]")
