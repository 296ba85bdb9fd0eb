"""Steps and sentences: where they end and what kind they are, however the text falls into tokens."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.generation.steps import Cues, Steps
from controllers.policy.speculation import CUES, CueList

ENGLISH = Cues()
WORDS = (
    "Wait",
    "wait",
    "yes",
    "check",
    "checkmate",
    "re",
    "another",
    "so",
    "hold on",
    "think again",
    "日本",
    "é",
    "3.14",
)
MARKS = (", ", " ", ".", ". ", "!", "\n", "\n\n", "。", "…", '"', ")")
PARTS = st.sampled_from((*WORDS, *MARKS))
TEXTS = st.lists(PARTS, max_size=30).map("".join)
ENDLESS = 10**9


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(edges)]


def kinds(pieces: list[str], sentence_tokens: int = ENDLESS, delimiters: tuple[str, ...] = ("\n\n",)) -> list[str]:
    steps = Steps(ENGLISH, delimiters, sentence_tokens)
    found = [kind for piece in pieces for kind in steps.feed(piece)]
    return found + steps.feed("", last=True)


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("Wait, that is too big", "reflection"),
        ("so 3+4=7", "statement"),
        ("Yes, that is it", "affirmation"),
        ("YEAH. wait", "reflection"),  # one each: a tie
        ("yes, yes, wait", "affirmation"),
        ("Yes, the final answer, but let me verify", "verification"),
        ("hold\n on", "reflection"),
        ("checkmate in anotherone", "statement"),
        ("I recheck and uncheck", "statement"),
        ("double-check it", "verification"),
        ("await, waiting", "statement"),
        ("", "statement"),
    ],
)
def test_a_sentence_is_classified_by_its_whole_word_cues(sentence: str, kind: str) -> None:
    assert ENGLISH.classify(sentence) == kind


def test_every_language_in_use_has_its_say_and_scripts_without_blanks_need_none() -> None:
    cues = Cues([*CUES.values(), CueList(reflection=("等等", "moment"), affirmation=("对",), verification=("检查",))])
    assert cues.classify("我们等等再说") == "reflection"
    assert cues.classify("让我检查一下") == "verification"
    assert cues.classify("Moment mal") == "reflection"
    assert cues.classify("momentum") == "statement"
    assert cues.classify("wait") == "reflection"


def test_a_list_without_cues_finds_none() -> None:
    assert Cues([CueList()]).classify("wait, yes, check") == "statement"


@pytest.mark.parametrize("cue", ["", "  "])
def test_a_cue_cannot_be_empty(cue: str) -> None:
    with pytest.raises(ValueError, match="reflection"):
        CueList(reflection=(cue,))


@given(TEXTS, st.lists(st.integers(0, 10**6), max_size=12))
def test_how_the_text_falls_into_tokens_does_not_matter(text: str, places: list[int]) -> None:
    assert kinds(cut(text, places)) == kinds([*text])


@given(TEXTS, st.lists(st.integers(0, 10**6), max_size=12))
def test_nothing_is_classified_before_the_first_delimiter(text: str, places: list[int]) -> None:
    assert kinds(cut(text.replace("\n\n", "\n."), places)) == []


@given(TEXTS)
def test_there_is_at_most_one_sentence_behind_each_delimiter(text: str) -> None:
    assert len(kinds([*text])) <= text.count("\n\n")


@given(TEXTS, st.integers(1, 5))
def test_no_sentence_stays_open_for_more_tokens_than_it_may_have(text: str, most: int) -> None:
    steps, open_for = Steps(ENGLISH, sentence_tokens=most), 0
    for character in text:
        steps.feed(character)
        open_for = open_for + 1 if steps.open else 0
        assert open_for <= most


@given(TEXTS)
def test_it_agrees_with_reading_the_whole_text_at_once(text: str) -> None:
    expected = []
    for behind in re.split(r"\n\n", text)[1:]:
        sentence = behind.strip()
        if sentence:
            ended = re.search(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？]|(?=\n)", sentence)
            expected.append(ENGLISH.classify(sentence[: ended.end()] if ended else sentence))
    found = kinds([*text])
    assert [kind for kind in found if kind != "statement"] == [kind for kind in expected if kind != "statement"]


def test_a_verification_is_known_as_soon_as_its_cue_cannot_become_another_word() -> None:
    steps = Steps(ENGLISH)
    assert [steps.feed(piece) for piece in ["so\n\n", "Let", " me", " check", ":"]] == [
        [],
        [],
        [],
        [],
        ["verification"],
    ]
    steps = Steps(ENGLISH)
    assert [steps.feed(piece) for piece in ["\n\n", "check", "mate", ". ", "a"]] == [[], [], [], ["statement"], []]


def test_a_sentence_ends_before_the_next_delimiter_and_the_next_one_opens_behind_it() -> None:
    steps = Steps(ENGLISH)
    assert steps.feed("\n\nyes") == []
    assert steps.feed("\n\n") == ["affirmation"]
    assert steps.open and steps.blank
    assert steps.feed("wait ") == []
    assert steps.open and not steps.blank
    assert steps.feed("a", last=True) == ["reflection"]
    assert not steps.open and not steps.blank


def test_a_number_does_not_end_a_sentence() -> None:
    assert kinds(["\n\n", "3", ".", "14 wait"]) == ["reflection"]


def test_an_open_sentence_can_be_skipped_and_opened_again() -> None:
    steps = Steps(ENGLISH)
    steps.feed("\n\nsome\n")
    steps.skip()
    assert steps.feed("wait. ") == []
    assert steps.feed("\n") == [] and steps.feed("\nwait. ") == ["reflection"]
    steps.reopen()
    assert steps.feed("yes. ") == ["affirmation"]


def test_delimiters_of_several_kinds_and_of_one_character() -> None:
    assert kinds([*"a---wait. b"], delimiters=("---", "\n\n")) == ["reflection"]
    assert kinds([*"a|yes. b|wait"], delimiters=("|",)) == ["affirmation", "reflection"]
