import pytest

from models.formats import FAMILIES
from models.formats.reasoning import ReasoningFormat
from models.formats.vocabulary import compile_tags
from models.text.tokenizer import HubTokenizer


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_compiles_against_the_demo_vocabulary(family: ReasoningFormat, tokenizer: HubTokenizer) -> None:
    tags = compile_tags(family, tokenizer)
    pairs = (family.thinking, family.direct, family.budget, family.solution)
    texts = [tag for pair in pairs if pair for tag in pair]
    assert sorted(tag.text for tag in (*tags.by_id.values(), *tags.by_text)) == sorted(texts)
    assert tags.begins == ("reasoning" if family.template_opens else "start")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_whose_thinking_is_apart_can_answer_without_it(family: ReasoningFormat) -> None:
    assert ("no_think" in family.prefixes) == (family.scope != "reply")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_family_thinks_exactly_if_it_has_thinking_tags(family: ReasoningFormat) -> None:
    assert ("think" in family.prefixes) == (family.scope is not None)
    assert (family.scope == "thinking") == (family.thinking is not None)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_family_with_budgets_can_end_what_they_count(family: ReasoningFormat, tokenizer: HubTokenizer) -> None:
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
    assert len(tags.by_id) == 4


def test_a_tag_that_is_no_token_is_matched_by_text(tokenizer: HubTokenizer) -> None:
    family = ReasoningFormat(name="odd", thinking=("<ponder>", "</ponder>"))
    tags = compile_tags(family, tokenizer)
    assert [tag.text for tag in tags.by_text] == ["<ponder>", "</ponder>"]


def test_opening_tags_count_at_the_start_only_and_closing_ones_never_become_text(tokenizer: HubTokenizer) -> None:
    tags = {tag.text: tag for tag in compile_tags(FAMILIES["lhrm"], tokenizer).by_id.values()}
    assert dict(tags["<think>"].leads) == {"start": "reasoning"}
    assert set(tags["</think>"].leads) == {"start", "reasoning", "answer"}
    assert dict(tags["<no_think>"].leads) == {"start": "answer"}


def test_only_a_family_with_two_kinds_of_opening_chooses_its_mode() -> None:
    assert [name for name, family in FAMILIES.items() if family.chooses] == ["lhrm"]
