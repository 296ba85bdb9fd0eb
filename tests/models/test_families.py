"""The built-in families: what each has, and that it hangs together."""

import pytest

from models.formats import FAMILIES
from models.formats.reasoning import ReasoningFormat, effort_word, read_formats
from models.formats.vocabulary import compile_tags
from models.text.tokenizer import HubTokenizer

EACH = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


@EACH
def test_every_family_compiles_against_the_demo_vocabulary(family: ReasoningFormat, tokenizer: HubTokenizer) -> None:
    tags = compile_tags(family, tokenizer)
    known = {tag.text for tag in tags.by_id.values()}
    assert {tag.text for tag in tags.by_text} == {tag for tag in family.tags if tags.mark(tag) == tag}
    assert all(tokenizer.control_id(text) in tags.by_id for text in known)


@EACH
def test_a_family_thinks_exactly_if_it_has_tags_for_it(family: ReasoningFormat) -> None:
    assert family.able
    assert ("think" in family.able) == (family.scope is not None)
    assert (family.scope == "thinking") == (family.thinking is not None)


@EACH
def test_a_family_with_budgets_can_end_what_they_count(family: ReasoningFormat) -> None:
    if family.scope is None:
        assert not (family.wrap_up or family.closing)
        return
    closing = {"thinking": family.thinking, "reply": family.solution}[family.scope]
    assert closing is not None
    assert family.closing.startswith(closing[1])
    assert family.wrap_up


def test_a_clients_budget_is_written_into_a_budget_familys_own_field() -> None:
    assert FAMILIES["selfbudgeter"].budget_field(250) == "<budget>250</budget><solution>"
    assert FAMILIES["lhrm"].budget_field(250) == ""


def test_the_demo_vocabulary_has_the_hybrid_tags_as_single_tokens(tokenizer: HubTokenizer) -> None:
    tags = compile_tags(FAMILIES["lhrm"], tokenizer)
    assert tags.by_text == ()
    assert {tag.text for tag in tags.by_id.values()} >= set(FAMILIES["lhrm"].tags)


def test_a_tag_that_is_no_token_is_matched_by_text(tokenizer: HubTokenizer) -> None:
    tags = compile_tags(ReasoningFormat(name="odd", thinking=("<ponder>", "</ponder>")), tokenizer)
    assert [tag.text for tag in tags.by_text] == ["<ponder>", "</ponder>"]


def test_only_a_family_with_two_kinds_of_opening_chooses_its_mode() -> None:
    assert [name for name, family in FAMILIES.items() if family.chooses] == ["lhrm"]


def test_a_family_may_be_like_another_of_the_same_tables_or_a_built_in_one() -> None:
    tables = {"mine": {"like": "qwen3", "closing": "</think>"}, "other": {"like": "mine", "wrap_up": "Enough."}}
    read = read_formats(tables, FAMILIES)
    assert (read["other"].thinking, read["other"].closing) == (("<think>", "</think>"), "</think>")
    assert (read["other"].wrap_up, read["mine"].wrap_up) == ("Enough.", FAMILIES["qwen3"].wrap_up)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"like": "sphinx"}, "families.x: like: unknown family 'sphinx'; known: x, lhrm"),
        ({"like": "x"}, "families.x: like: unknown family 'x'"),
        ({"thinking": ["<a>", "</a>"], "closing": "\n</a>"}, "families.x: closing: must begin with '</a>'"),
        ({"thinkin": 1}, "families.x.thinkin: unknown key"),
        ({"thinking": ["<a>"]}, "families.x.thinking"),
        ({"modes": {"ponder": {}}}, "families.x.modes.ponder"),
        (
            {"tools": {"open": "<a>", "call": "$name", "close": ""}},
            "families.x.tools: call: needs $name",
        ),
        ({"tools": {"open": "", "call": "$name$arguments", "close": ""}}, "families.x.tools: open: may be empty only"),
    ],
)
def test_a_wrong_table_is_told_by_its_key(table: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=r"^families\.") as raised:
        read_formats({"x": table}, FAMILIES)
    assert str(raised.value).startswith(fault)


def test_an_effort_that_the_template_does_not_know_is_the_nearest_that_it_knows() -> None:
    order = ("minimal", "low", "medium", "high", "xhigh", "max")
    efforts = {"argument": "reasoning_effort", "low": "low", "high": "deep"}
    words = {effort: effort_word(efforts, effort, order) for effort in order}
    assert words == {"minimal": "low", "low": "low", "medium": "low", "high": "deep", "xhigh": "deep", "max": "deep"}


def test_a_budget_argument_takes_the_numbers_that_the_model_knows() -> None:
    argument = FAMILIES["seed_oss"].budget_argument
    assert argument is not None
    assert [argument.fitting(tokens) for tokens in (1, 512, 1500, 99999)] == [512, 512, 1024, 16384]
