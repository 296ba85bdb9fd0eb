"""The state machine from token ids to chunks."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines.base import PositionLogprobs, TokenLogprob
from models.formats import FAMILIES
from models.formats.chunks import Chunk
from models.formats.parser import ReplyParser
from models.formats.vocabulary import Tags, compile_tags

THINK, END, DIRECT, END_DIRECT = 1000, 1001, 1002, 1003
SPELLED = {THINK: "<think>", END: "</think>", DIRECT: "<no_think>", END_DIRECT: "</no_think>"}


class Vocabulary:
    """Knows the four tags as control tokens, or none of them. Every character is a token of its own."""

    eos_ids = special_texts = frozenset[Any]()

    def __init__(self, *texts: str) -> None:
        self._ids = {text: token_id for token_id, text in SPELLED.items() if text in texts}

    def control_id(self, text: str) -> int | None:
        return self._ids.get(text)

    def encode_control(self, text: str) -> list[int]:
        return [token_id for tag, token_id in self._ids.items() if tag in text]

    def token_text(self, token_id: int) -> str:
        return SPELLED.get(token_id, chr(token_id))

    def protect(self, texts: Iterable[str]) -> None:
        assert texts


def tags(family: str, *, as_tokens: bool = True) -> Tags:
    return compile_tags(FAMILIES[family], Vocabulary(*(SPELLED.values() if as_tokens else ())))  # type: ignore[arg-type]


Token = tuple[int, str]


def words(text: str, start: int = 1) -> list[Token]:
    """Each character a token of its own; tags in angle brackets are their control tokens."""
    tokens: list[Token] = []
    while text:
        for token_id, spelled in SPELLED.items():
            if text.startswith(spelled):
                tokens.append((token_id, spelled))
                text = text[len(spelled) :]
                break
        else:
            tokens.append((ord(text[0]) % 900, text[0]))
            text = text[1:]
    return tokens


def parse(machine: Tags, tokens: Sequence[Token], cuts: Sequence[int] = ()) -> list[Chunk]:
    """All chunks, adjacent ones of one kind joined, with the stream cut into deltas at `cuts`."""
    parser = ReplyParser(machine)
    bounds = [0, *sorted({cut % (len(tokens) + 1) for cut in cuts}), len(tokens)]
    chunks: list[Chunk] = []
    for a, b in itertools.pairwise(bounds):
        chunks += parser.feed([t for t, _ in tokens[a:b]], [p for _, p in tokens[a:b]])
    return joined(chunks + parser.flush())


def joined(chunks: Sequence[Chunk]) -> list[Chunk]:
    out: list[Chunk] = []
    for chunk in chunks:
        if out and out[-1].kind == chunk.kind:
            last = out.pop()
            chunk = replace(last, text=last.text + chunk.text, token_ids=last.token_ids + chunk.token_ids)
        out.append(chunk)
    return out


def texts(chunks: Sequence[Chunk]) -> list[tuple[str, str]]:
    return [(chunk.kind, chunk.text) for chunk in joined([chunk for chunk in chunks if chunk.text])]


def test_thinking_then_answer() -> None:
    chunks = parse(tags("lhrm"), words("<think>ab</think>c"))
    assert texts(chunks) == [("reasoning", "ab"), ("answer", "c")]
    assert [chunk.token_ids for chunk in chunks] == [(THINK,), (97, 98), (END,), (99,)]


def test_a_direct_answer_has_no_reasoning_and_its_tags_are_control() -> None:
    chunks = parse(tags("lhrm"), words("<no_think>ab</no_think>"))
    assert texts(chunks) == [("answer", "ab")]
    assert [chunk.kind for chunk in chunks] == ["control", "answer", "control"]


def test_text_without_any_tag_is_the_answer() -> None:
    for family in ("lhrm", "qwen3", "plain"):
        for as_tokens in (True, False):
            assert texts(parse(tags(family, as_tokens=as_tokens), words("ab"))) == [("answer", "ab")]


def test_generation_that_ends_inside_thinking_has_no_answer() -> None:
    assert texts(parse(tags("lhrm"), words("<think>ab"))) == [("reasoning", "ab")]


def test_an_empty_block_leaves_no_reasoning() -> None:
    assert texts(parse(tags("qwen3"), words("<think>\n\n</think>\n\nok"))) == [("answer", "ok")]


def test_newlines_behind_a_tag_are_layout_and_others_are_text() -> None:
    chunks = parse(tags("qwen3"), words("<think>\na\n</think>\n\nb\n\nc"))
    assert texts(chunks) == [("reasoning", "a\n"), ("answer", "b\n\nc")]


def test_a_second_block_behind_some_of_the_answer_is_thinking_unless_it_is_quoted() -> None:
    assert texts(parse(tags("lhrm"), words("<think>a</think>b<think>c</think>d"))) == [
        ("reasoning", "a"),
        ("answer", "b"),
        ("reasoning", "c"),
        ("answer", "d"),
    ]
    assert texts(parse(tags("lhrm"), words("<think>a</think>b `<think>c`"))) == [
        ("reasoning", "a"),
        ("answer", "b `<think>c`"),
    ]


@pytest.mark.parametrize("as_tokens", [True, False])
@pytest.mark.parametrize(
    ("reply", "thought", "answer"),
    [
        ("<think>a</think>\n\n<think>b</think>c", "ab", "c"),  # a second block is thinking
        ("\n <think>a</think>b", "a", "b"),  # what stands before the first is layout
        (" \n b", "", " \n b"),
        ("<think>a</think></think>b", "a", "b"),  # one more closing tag is a slip
        ("<think>a</think></think></think>b", "a", "</think>b"),
        ("</think>\nb", "", "b"),
        ("<think>a</think>Write `</think>` to end it", "a", "Write `</think>` to end it"),
        ("<think>a<think>b</think>c", "a<think>b", "c"),
        ("  ", "", "  "),
    ],
)
def test_what_a_tag_means_where_it_stands(reply: str, thought: str, answer: str, as_tokens: bool) -> None:
    found = dict(texts(parse(tags("qwen3", as_tokens=as_tokens), words(reply))))
    assert (found.get("reasoning", ""), found.get("answer", "")) == (thought, answer)


def test_a_reply_that_thinks_although_it_was_told_not_to_is_read_as_thinking() -> None:
    parser = ReplyParser(tags("qwen3"))
    told = words("<think>\n\n</think>\n\n")
    parser.feed([token for token, _ in told], [piece for _, piece in told])
    assert parser.section == "answer"
    tokens = words("<think>a</think>b")
    chunks = parser.feed([token for token, _ in tokens], [piece for _, piece in tokens])
    assert texts(chunks) == [("reasoning", "a"), ("answer", "b")]


def test_behind_a_cut_an_opening_tag_is_text_and_a_closing_one_a_slip() -> None:
    for reply, answer in (("<think>a", "<think>a"), ("</think>\na", "a")):
        parser = ReplyParser(tags("qwen3"))
        for token, piece in words("<think>x</think>"):
            parser.feed([token], [piece])
        parser.shut()
        tokens = words(reply)
        assert texts(parser.feed([t for t, _ in tokens], [p for _, p in tokens])) == [("answer", answer)]
        parser.shut()  # there is nothing left to shut
        assert parser.section == "answer"


def test_a_section_can_be_set_where_the_server_begins_the_answer() -> None:
    parser = ReplyParser(tags("lhrm"))
    parser.section = "answer"
    assert texts(parser.feed([97], ["a"])) == [("answer", "a")]


def test_what_opens_and_what_closes_is_told_by_the_token() -> None:
    parser = ReplyParser(tags("lhrm"))
    assert parser.opens(THINK)
    assert parser.opens(DIRECT)
    assert parser.opens(ord("\n")), "it may be layout"
    assert not parser.opens(ord("a"))
    assert not parser.closes(ord("a"))
    parser.feed([THINK], ["<think>"])
    assert (parser.closes(END), parser.closes(THINK), parser.opens(END)) == (True, False, True)
    assert not ReplyParser(tags("plain")).opens(ord(" "))


def test_another_vocabulary_goes_on_and_what_cannot_become_a_tag_there_is_released() -> None:
    for goes_on, released in ((True, [("reasoning", "</thi")]), (False, [])):
        parser = ReplyParser(tags("qwen3", as_tokens=False))
        parser.feed([1, 2], ["<think>", "</thi"])
        assert parser.pending == 1
        assert texts(parser.listen(tags("qwen3", as_tokens=goes_on))) == released
    assert texts(parser.feed([3], ["nk>a"])) == [("answer", "a")]


def test_a_tag_spelled_in_ordinary_tokens_is_text_where_the_tag_is_a_token() -> None:
    spelled = [(ord(c), c) for c in "</think>"]
    chunks = parse(tags("lhrm"), [(THINK, "<think>"), (97, "a"), *spelled, (END, "</think>"), (98, "b")])
    assert texts(chunks) == [("reasoning", "a</think>"), ("answer", "b")]


def test_a_tag_split_over_tokens_and_shared_with_text_is_found_where_it_is_no_token() -> None:
    machine = tags("qwen3", as_tokens=False)
    tokens = [(1, "<thi"), (2, "nk>a"), (3, "b.</"), (4, "think"), (5, ">\n\nc"), (6, "d")]
    chunks = parse(machine, tokens)
    assert texts(chunks) == [("reasoning", "ab."), ("answer", "cd")]
    # a token belongs to the chunk of its first character of text: 2 and 3 to reasoning, 5 to the answer
    assert [(c.kind, c.token_ids) for c in chunks] == [
        ("control", (1,)),
        ("reasoning", (2, 3)),
        ("control", (4,)),
        ("answer", (5, 6)),
    ]


def test_what_only_looks_like_a_tag_is_released_as_soon_as_it_cannot_become_one() -> None:
    parser = ReplyParser(tags("qwen3", as_tokens=False))
    parser.feed([1], ["<think>"])
    assert texts(parser.feed([2], ["a < b"])) == [("reasoning", "a < b")]
    assert texts(parser.feed([3], [" </th"])) == [("reasoning", " ")]
    assert texts(parser.feed([4], ["ree>"])) == [("reasoning", "</three>")]


def test_text_held_for_a_tag_that_never_came_is_released_at_the_end() -> None:
    assert texts(parse(tags("qwen3", as_tokens=False), [(1, "<think>a</thi")])) == [("reasoning", "a</thi")]


def test_two_whole_tags_in_one_token() -> None:
    machine = tags("qwen3", as_tokens=False)
    assert texts(parse(machine, [(1, "<think></think>x")])) == [("answer", "x")]


def test_tokens_without_text_stay_in_order_and_belong_to_the_section_they_stand_in() -> None:
    machine = tags("qwen3", as_tokens=False)
    chunks = parse(machine, [(1, ""), (2, "<think>"), (3, ""), (4, "é"), (5, ""), (6, "</think>"), (7, "a"), (8, "")])
    assert [token_id for chunk in chunks for token_id in chunk.token_ids] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert texts(chunks) == [("reasoning", "é"), ("answer", "a")]


def test_logprobs_travel_with_their_tokens() -> None:
    at = [PositionLogprobs(TokenLogprob(i, -float(i))) for i in (THINK, 97, END, 98)]
    tokens = words("<think>a</think>b")
    for as_tokens in (True, False):
        parser = ReplyParser(tags("lhrm", as_tokens=as_tokens))
        chunks = parser.feed([t for t, _ in tokens], [p for _, p in tokens], at) + parser.flush()
        assert [x for chunk in chunks for x in chunk.logprobs or ()] == at


PIECES = st.sampled_from(
    ["a", "b\n", "\n\n", "<", "</", "think", ">", "", "<think", "no_think>", "é", *SPELLED.values()]
)


@given(st.lists(PIECES, max_size=30), st.lists(st.integers(0, 40), max_size=6), st.booleans())
@pytest.mark.parametrize("family", ["lhrm", "qwen3", "selfbudgeter", "plain"])
def test_any_way_of_cutting_the_stream_gives_the_same_chunks(
    family: str, pieces: list[str], cuts: list[int], as_tokens: bool
) -> None:
    machine = tags(family, as_tokens=as_tokens)
    ids = {spelled: token_id for token_id, spelled in SPELLED.items()}
    tokens = [(ids.get(piece, i), piece) for i, piece in enumerate(pieces)]
    whole = parse(machine, tokens)
    assert parse(machine, tokens, cuts) == whole
    assert parse(machine, tokens, range(len(tokens))) == whole
    assert sorted(t for chunk in whole for t in chunk.token_ids) == sorted(t for t, _ in tokens)


@given(st.lists(PIECES, max_size=20), st.lists(st.integers(0, 100), max_size=20))
@pytest.mark.parametrize("family", ["lhrm", "qwen3", "selfbudgeter", "plain"])
def test_how_the_text_falls_into_tokens_does_not_matter_where_tags_are_text(
    family: str, pieces: list[str], cuts: list[int]
) -> None:
    machine = tags(family, as_tokens=False)
    text = "".join(pieces)
    bounds = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    recut = [(i, text[a:b]) for i, (a, b) in enumerate(itertools.pairwise(bounds))]
    assert texts(parse(machine, recut)) == texts(parse(machine, list(enumerate(pieces))))


@given(st.lists(PIECES, max_size=20))
def test_no_text_is_lost_doubled_or_reordered(pieces: list[str]) -> None:
    chunks = parse(tags("plain"), list(enumerate(pieces)))
    assert "".join(chunk.text for chunk in chunks) == "".join(pieces)
