"""Tools and formats through the official `openai` client, streamed and not."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from models.engines.base import Grammar, Prompt, Sampling
from models.engines.scripted import Line
from tests.wire.test_openai_client import MESSAGES, client_of

pytestmark = pytest.mark.every_step

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
ARGUMENTS = '{"a": 1, "b": "} </tool_call> \\"{"}'
CALL = f'<tool_call>\n{{"name": "add", "arguments": {ARGUMENTS}}}\n</tool_call>'


class Model:
    """Goes on where the prompt ends: thinks unless it has thought, then says `answer`. Remembers what it was asked."""

    def __init__(self, tokenizer: Any, answer: str, thought: str = "1 and 1") -> None:
        self.tokenizer, self.answer, self.thought = tokenizer, answer, thought
        self.prompts: list[str] = []
        self.grammars: list[Grammar | None] = []

    def __call__(self, prompt: Prompt, sampling: Sampling) -> Line:
        said = self.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        self.prompts.append(said)
        self.grammars.append(sampling.grammar)
        if sampling.grammar is not None:
            assert prompt.reasoning_ended
        reply = said.rpartition("assistant\n")[2]
        if "</think>" in reply or "<no_think>" in reply:
            return self.answer
        return ("" if "<think>" in reply else "<think>") + f"{self.thought}</think>{self.answer}"


@pytest.fixture
def asked(serve, tokenizer) -> Iterator[Any]:
    """`asked(answer, **fields)`: the model and the reply, or the chunks of its stream."""

    def ask(answer: str, **fields: Any) -> tuple[Model, Any]:
        model = Model(tokenizer, answer)
        with client_of(serve(model)) as client:
            reply = client.chat.completions.create(model="demo", messages=MESSAGES, **fields)
            return model, list(reply) if fields.get("stream") else reply

    yield ask


def test_a_call_is_read_behind_the_thinking(asked):
    model, reply = asked(CALL, tools=[ADD])
    message = reply.choices[0].message
    assert (message.content, message.reasoning_content) == (None, "1 and 1")
    (call,) = message.tool_calls
    assert (call.type, call.function.name, call.function.arguments) == ("function", "add", ARGUMENTS)
    assert call.id.startswith("call_")
    assert reply.choices[0].finish_reason == "tool_calls"
    assert '"name": "add"' in model.prompts[0]
    thinking, answer = model.grammars
    assert thinking is None, "the thinking is free"
    assert json.loads(answer.value)["format"]["triggers"] == ["<tool_call>"]


def test_a_streamed_call_comes_piece_by_piece(asked):
    _, chunks = asked(f"so: {CALL}\n{CALL}", tools=[ADD], stream=True)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "so:"
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [call.function.name for call in calls if call.id] == ["add", "add"]
    assert len({call.id for call in calls if call.id}) == 2
    for index in (0, 1):
        pieces = [call.function.arguments for call in calls if call.index == index]
        assert "".join(pieces) == ARGUMENTS
        assert len(pieces) > 5
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_clients_own_accumulator_reads_the_stream(asked, serve, tokenizer):
    with (
        client_of(serve(Model(tokenizer, CALL))) as client,
        client.chat.completions.stream(model="demo", messages=MESSAGES, tools=[ADD]) as stream,
    ):
        stream.until_done()
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls[0].function.arguments == ARGUMENTS


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_call_that_must_be_is_all_that_the_grammar_allows(asked, choice):
    model, reply = asked(CALL, tools=[ADD], tool_choice=choice)
    form = json.loads(model.grammars[-1].value)["format"]
    assert (form["type"], form["at_least_one"]) == ("tags_with_separator", True)
    assert form["stop_after_first"] is (choice != "required")
    assert form["tags"][0]["content"]["json_schema"] == ADD["function"]["parameters"]
    assert reply.choices[0].finish_reason == "tool_calls"


def test_only_one_call_where_the_client_wants_no_more(asked):
    _, reply = asked(f"{CALL}\n{CALL}", tools=[ADD], parallel_tool_calls=False)
    assert len(reply.choices[0].message.tool_calls) == 1
    assert reply.choices[0].finish_reason == "tool_calls"


def test_without_a_choice_the_model_is_shown_no_tools_and_its_text_is_text(asked):
    model, reply = asked(CALL, tools=[ADD], tool_choice="none")
    assert "add" not in model.prompts[0]
    assert reply.choices[0].message.tool_calls is None
    assert '"add"' in reply.choices[0].message.content
    assert model.grammars == [None]


@pytest.mark.parametrize(
    ("fields", "kind", "value"),
    [
        ({"response_format": FORMAT}, "json", SCHEMA),
        ({"response_format": {"type": "json_object"}}, "json_object", True),
        ({"extra_body": {"structured_outputs": {"regex": "[0-9]+"}}}, "regex", "[0-9]+"),
        ({"extra_body": {"structured_outputs": {"json": SCHEMA}}}, "json", SCHEMA),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_format_holds_for_the_answer_and_not_for_the_thinking(asked, fields, kind, value, stream):
    model, reply = asked('{"sum": 2}', stream=stream, **fields)
    assert model.grammars == [None, Grammar(kind, value)]
    if stream:
        deltas = [chunk.choices[0].delta for chunk in reply]
        assert "".join(delta.content or "" for delta in deltas) == '{"sum": 2}'
        assert "".join(getattr(delta, "reasoning", "") for delta in deltas) == "1 and 1"
    else:
        assert json.loads(reply.choices[0].message.content) == {"sum": 2}
        assert reply.choices[0].message.reasoning_content == "1 and 1"


def test_a_format_holds_from_the_first_token_where_there_is_no_thinking(asked):
    model, reply = asked('{"sum": 2}', response_format=FORMAT, reasoning_effort="none")
    assert model.grammars == [Grammar("json", SCHEMA)]
    assert reply.choices[0].message.content == '{"sum": 2}'


def test_tools_and_a_format_are_one_or_the_other(asked):
    model, _ = asked('{"sum": 2}', tools=[ADD], response_format=FORMAT)
    form = json.loads(model.grammars[-1].value)["format"]
    assert [element["type"] for element in form["elements"]] == ["json_schema", "tags_with_separator"]


def test_the_results_of_tools_go_back_into_the_prompt(serve, tokenizer):
    model = Model(tokenizer, "2")
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "two"},
    ]
    with client_of(serve(model)) as client:
        client.chat.completions.create(model="demo", messages=turns, tools=[ADD])
    assert '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>' in model.prompts[0]
    assert "<tool_response>two</tool_response>" in model.prompts[0]


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("cut", ["hard", "graceful"])
def test_a_budget_never_writes_into_a_call(serve, tokenizer, budget, cut):
    model = Model(tokenizer, CALL, thought="1 and 1 " * 20)
    limits = {"reasond": {"budget": budget, "cut": cut}}
    with client_of(serve(model)) as client:
        reply = client.chat.completions.create(model="demo", messages=MESSAGES, tools=[ADD], extra_body=limits)
    assert reply.choices[0].message.tool_calls[0].function.arguments == ARGUMENTS
    assert reply.usage.completion_tokens_details.reasoning_tokens <= budget
    assert reply.reasond["cut"] is not None


def test_a_penalty_that_the_answers_segment_would_forget_is_refused_with_a_format(asked):
    with pytest.raises(openai.BadRequestError, match="presence_penalty"):
        asked("{}", response_format=FORMAT, presence_penalty=1)
    model, reply = asked(CALL, tools=[ADD], presence_penalty=1)
    assert model.grammars == [None], "calls are read without their grammar"
    assert reply.choices[0].finish_reason == "tool_calls"


def test_a_model_that_ends_in_mid_thought_still_gives_its_answer(serve, tokenizer):
    def script(prompt: Prompt, sampling: Sampling) -> Line:
        return '{"sum": 2}' if sampling.grammar else "<think>hm"

    with client_of(serve(script)) as client:
        reply = client.chat.completions.create(model="demo", messages=MESSAGES, response_format=FORMAT)
    assert (reply.choices[0].message.content, reply.choices[0].message.reasoning) == ('{"sum": 2}', "hm")


def test_a_model_that_answers_without_a_mode_is_led_to_the_format(serve, tokenizer):
    def script(prompt: Prompt, sampling: Sampling) -> Line:
        return '{"sum": 2}' if sampling.grammar else "the sum is"

    with client_of(serve(script)) as client:
        reply = client.chat.completions.create(model="demo", messages=MESSAGES, response_format=FORMAT)
    assert reply.choices[0].message.content == '{"sum": 2}'
    assert reply.reasond["mode"] == "no_think"
