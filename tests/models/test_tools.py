import json
import re
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines.base import Grammar
from models.formats import FAMILIES
from models.formats.chunks import CallPart, Chunk
from models.formats.parser import ReplyParser
from models.formats.vocabulary import compile_tags
from models.text.tokenizer import HubTokenizer
from models.tool_calls.grammar import answer_grammar
from models.tool_calls.tools import Tool, json_object
from tests.formats import HERMES

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
ONE = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "}\\"</tool_call>{"}}\n</tool_call>'
ARGUMENTS = '{"a": 1, "b": "}\\"</tool_call>{"}'


TAGS = compile_tags(FAMILIES["hermes"], HubTokenizer("demo/tokenizer"))
TOKENS = {text: token_id for token_id, text in ((token_id, tag.text) for token_id, tag in TAGS.by_id.items())}


def read(text: str, cuts: list[int] | None = None, limited: bool = False) -> tuple[str, list[tuple[str, str]]]:
    """The text and the calls of an answer that arrives cut at `cuts`, its tags as tokens. `limited`: its limit ends
    it."""
    parser = ReplyParser(TAGS, [Tool("add")])
    parts = [part for part in re.split("(</?tool_call>)", text) if part]
    chunks = []
    for part in parts:
        if part in TOKENS:
            chunks += parser.feed([TOKENS[part]], [part])
            continue
        edges = [0, *sorted(cut % (len(part) + 1) for cut in cuts or ()), len(part)]
        for a, b in pairwise(edges):
            chunks += parser.feed([0], [part[a:b]])
    return gathered([*chunks, *parser.flush(cut=limited)])


def gathered(chunks: list[Chunk]) -> tuple[str, list[tuple[str, str]]]:
    calls: list[tuple[str, str]] = []
    for chunk in chunks:
        if chunk.call is not None:
            if chunk.call.name is not None:
                assert chunk.call.number == len(calls)
                calls.append((chunk.call.name, ""))
            calls[chunk.call.number] = (calls[chunk.call.number][0], calls[chunk.call.number][1] + chunk.text)
    return "".join(chunk.text for chunk in chunks if chunk.kind == "answer"), calls


@pytest.mark.parametrize("end", range(len("<tool_call>"), CALL.index("{", 12)))
def test_half_the_head_of_a_call_is_no_text_where_the_limit_cut_it(end: int) -> None:
    half = f"so {CALL[:end]}"
    assert read(half, limited=True) == ("so", [])
    assert read(half) == (half, [])


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_however_a_call_arrives_it_is_read_the_same(cuts: list[int]) -> None:
    text = f"let me see\n{ONE}\n{ONE} done"
    assert read(text, cuts) == ("let me see done", [("add", ARGUMENTS)] * 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain < text <tool", ("plain < text <tool", [])),
        ('<tool_call>{"arguments": {"x": [1]}, "name": "f"}</tool_call>', ("", [("f", '{"x": [1]}')])),
        ('<tool_call>{"name":"f","arguments":{}}</tool_call>', ("", [("f", "{}")])),
        ('<tool_call>{"name": "f"}</tool_call>', ("", [("f", "{}")])),
        ('<tool_call>{"name": "f", "arguments": "{}"}</tool_call>', ("", [("f", "{}")])),
        ("<tool_call>no json</tool_call>", ("<tool_call>no json</tool_call>", [])),
        ("<tool_call>[1]</tool_call>", ("<tool_call>[1]</tool_call>", [])),
        ("so <tool_call>no", ("so <tool_call>no", [])),
        ('<tool_call>{"na', ('<tool_call>{"na', [])),
        ('<tool_call>{"name": "f", "arguments": {"a": [1, 2', ("", [("f", '{"a": [1, 2')])),
        ('<tool_call>{"name": "f", "arguments": {"a": </tool_call>next', ("next", [("f", '{"a": ')])),
        ("  spaces at the end  ", ("  spaces at the end  ", [])),
    ],
)
def test_what_is_a_call_and_what_is_text(text: str, expected: tuple[str, list[tuple[str, str]]]) -> None:
    assert read(text) == expected
    assert read(text, list(range(len(text)))) == expected


@pytest.mark.parametrize(
    ("text", "answer", "calls"),
    [
        (CALL, "", [("add", '{"a": 1}')]),
        (f"Well. {CALL}", "Well.", [("add", '{"a": 1}')]),
        (f"It writes `{CALL}`.", f"It writes `{CALL}`.", []),
        ("<tool_call> begins one.", "<tool_call> begins one.", []),
    ],
)
def test_a_call_whose_tags_are_spelled_in_ordinary_tokens_is_read(text, answer, calls) -> None:
    tokenizer = HubTokenizer("demo/tokenizer")
    tags = compile_tags(FAMILIES["lhrm"], tokenizer)
    assert tokenizer.control_id("<tool_call>") is not None
    parser = ReplyParser(tags, [Tool("add")])
    chunks = []
    for token_id in [*tokenizer.encode_control("<no_think>"), *tokenizer.encode(text)]:
        chunks += parser.feed([token_id], [tokenizer.token_text(token_id)])
    assert gathered([*chunks, *parser.flush()]) == (answer, calls)


def test_arguments_leave_as_they_come_and_the_name_comes_first() -> None:
    parser = ReplyParser(TAGS, [Tool("add")])
    assert parser.feed([TOKENS["<tool_call>"], 1], ["<tool_call>", '\n{"name": "add", "arguments": ']) == []
    assert (parser.pending, parser.in_call, parser.section) == (2, False, "start")
    (first,) = parser.feed([2], ["{"])
    assert first.call is not None
    assert (first.call.number, first.call.name, first.text, first.token_ids[1:]) == (0, "add", "{", (1, 2))
    assert [(chunk.call, chunk.text) for chunk in parser.feed([3], ['"a": 1'])] == [(CallPart(0), '"a": 1')]
    assert (parser.in_call, parser.section) == (True, "answer")
    assert [chunk.text for chunk in parser.feed([4], ["}"])] == ["}"]
    assert (parser.feed([5], ["}\n"]), parser.calls_closed) == ([], 0)
    (last,) = parser.feed([TOKENS["</tool_call>"]], ["</tool_call>"])
    assert (last.kind, last.call, last.text, parser.calls_closed, parser.in_call) == ("tool", None, "", 1, False)


def test_the_grammar_of_a_call_writes_what_the_parser_reads() -> None:
    tool = Tool("add", {"type": "object", "properties": {"a": {"type": "integer"}}}, "adds")
    grammar = answer_grammar(HERMES, [tool], must_call=True, single=True, text=None)
    assert grammar is not None
    form = json.loads(grammar.value)["format"]
    assert (form["at_least_one"], form["stop_after_first"]) == (True, True)
    tag = form["tags"][0]
    assert tag["content"]["json_schema"] == tool.parameters
    assert read(tag["begin"] + '{"a": 3}' + tag["end"]) == ("", [("add", '{"a": 3}')])


def test_a_grammar_of_the_text_stands_beside_calls_and_alone() -> None:
    schema = Grammar("json", {"type": "object"})
    assert answer_grammar(HERMES, [], must_call=False, single=False, text=schema) is schema
    both = answer_grammar(HERMES, [Tool("f")], must_call=False, single=False, text=schema)
    assert both is not None
    assert [element["type"] for element in json.loads(both.value)["format"]["elements"]] == [
        "json_schema",
        "tags_with_separator",
    ]
    free = answer_grammar(HERMES, [Tool("f")], must_call=False, single=False, text=None)
    assert free is not None
    assert json.loads(free.value)["format"]["triggers"] == ["<tool_call>"]
    for kind, value in (("json_object", True), ("regex", "a+"), ("grammar", "root ::= 'a'")):
        assert answer_grammar(HERMES, [Tool("f")], must_call=False, single=False, text=Grammar(kind, value))
    with pytest.raises(ValueError, match="choice"):
        answer_grammar(HERMES, [Tool("f")], must_call=False, single=False, text=Grammar("choice", ["a"]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(JSON | st.dictionaries(st.text(max_size=3), JSON))
def test_an_object_that_was_read_can_be_written_again(value: object) -> None:
    read = json_object(json.dumps(value))
    assert read is None or isinstance(value, dict)
    orjson.dumps([[read]])


def test_what_is_no_object_or_nests_too_deep_is_none() -> None:
    assert json_object('{"a": [1, 2.5, "x", null]}') == {"a": [1, 2.5, "x", None]}
    assert json_object(f'{{"a": {2**70}}}') == {"a": float(2**70)}
    for text in ("", "[]", "5", '{"a"', '{"a": NaN}', "[" * 100_000, '{"a":' * 5000, '{"a": 1' + "0" * 400 + "}"):
        assert json_object(text) is None
    for levels, known in ((99, True), (100, False)):
        assert (json_object('{"a":' * levels + "{}" + "}" * levels) is not None) == known


@pytest.mark.parametrize("arguments", ["[" * 100_000, '{"a":' * 3000, f"{2**70}"])
def test_a_call_in_another_order_that_nests_for_ever_is_text_and_one_with_a_large_number_is_a_call(
    arguments: str,
) -> None:
    body = f'{{"arguments": {{"a": {arguments}}}, "name": "add"}}'
    text, calls = read(f"<tool_call>{body}</tool_call>")
    assert calls == ([("add", json.dumps({"a": float(2**70)}))] if arguments.isdigit() else [])
    assert text == ("" if calls else f"<tool_call>{body}</tool_call>")
