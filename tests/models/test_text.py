from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from models.engines.base import Sampling
from models.text.detokenizer import ReplyText
from models.text.tokenizer import HubTokenizer
from tests.conftest import ROOT

TOKENIZER = HubTokenizer(ROOT / "demo" / "tokenizer")
# The replacement character stands for bytes that are no character, which is just what a decoder waits behind.
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="�"), min_size=1, max_size=30)
ANY_IDS = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30)


def pieces(prompt: list[int], reply: list[int], sampling: Sampling) -> Iterator[str]:
    text = ReplyText(TOKENIZER.backend, prompt, sampling)
    for index, token_id in enumerate(reply):
        delta = text.delta((token_id,), finish="length" if index == len(reply) - 1 else None)
        yield from delta.pieces


@given(WORDS, WORDS)
def test_the_pieces_make_the_text(before: str, said: str) -> None:
    reply = TOKENIZER.encode(said)
    assert "".join(pieces(TOKENIZER.encode(before), reply, Sampling())) == TOKENIZER.decode(reply)


@given(WORDS, WORDS, st.data())
def test_a_prompt_cut_inside_a_character_gives_the_character_to_the_reply(
    before: str, said: str, data: st.DataObject
) -> None:
    """Segments of one reply are re-submitted as prompts; where they are cut must not matter to the text."""
    prompt, reply = TOKENIZER.encode(before), TOKENIZER.encode(said)
    at = data.draw(st.integers(0, len(reply) - 1))
    first = "".join(pieces(prompt, reply[:at], Sampling()))
    second = "".join(pieces(prompt + reply[:at], reply[at:], Sampling()))
    assert first + second == TOKENIZER.decode(reply)


@given(ANY_IDS, ANY_IDS)
def test_tokens_that_are_no_text_do_no_harm(prompt: list[int], reply: list[int]) -> None:
    assert len(list(pieces(prompt, reply, Sampling()))) == len(reply)


def test_a_step_of_several_tokens_ends_at_the_stop_string() -> None:
    text = ReplyText(TOKENIZER.backend, [], Sampling(stop=("bc",)))
    ids = [TOKENIZER.encode(letter)[0] for letter in "abcd"]
    delta = text.delta(ids)
    assert (delta.token_ids, delta.pieces) == (tuple(ids[:3]), ("a", "", ""))
    assert (delta.finish, delta.stopped_by) == ("stop", "bc")


def test_stop_strings_do_not_count_up_to_min_tokens() -> None:
    text = ReplyText(TOKENIZER.backend, [], Sampling(stop=("a",), min_tokens=2))
    (letter,) = TOKENIZER.encode("a")
    assert [text.delta((letter,)).finish for _ in range(3)] == [None, None, "stop"]


def test_special_tokens_are_text_only_where_asked_for() -> None:
    (opening,) = TOKENIZER.encode_control("<think>")
    assert list(pieces([], [opening, opening], Sampling(skip_special_tokens=False))) == ["<think>", "<think>"]
