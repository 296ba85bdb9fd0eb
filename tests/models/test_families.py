import pytest

from models.families import FAMILIES, Family, compile_tags
from models.tokenizer import HubTokenizer


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_compiles_against_the_demo_vocabulary(family: Family, tokenizer: HubTokenizer) -> None:
    tags = compile_tags(family, tokenizer)
    texts = [tag for pair in (family.thinking, family.direct) if pair for tag in pair]
    assert sorted(tag.text for tag in (*tags.by_id.values(), *tags.by_text)) == sorted(texts)
    assert tags.begins == ("reasoning" if family.template_opens else "start")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_can_answer_without_thinking(family: Family) -> None:
    assert "no_think" in family.prefixes


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_family_thinks_exactly_if_it_has_thinking_tags(family: Family) -> None:
    assert ("think" in family.prefixes) == (family.thinking is not None)


def test_the_demo_vocabulary_has_the_hybrid_tags_as_single_tokens(tokenizer: HubTokenizer) -> None:
    tags = compile_tags(FAMILIES["lhrm"], tokenizer)
    assert tags.by_text == ()
    assert len(tags.by_id) == 4


def test_a_tag_that_is_no_token_is_matched_by_text(tokenizer: HubTokenizer) -> None:
    family = Family(name="odd", thinking=("<ponder>", "</ponder>"))
    tags = compile_tags(family, tokenizer)
    assert [tag.text for tag in tags.by_text] == ["<ponder>", "</ponder>"]


def test_opening_tags_count_at_the_start_only_and_closing_ones_never_become_text(tokenizer: HubTokenizer) -> None:
    tags = {tag.text: tag for tag in compile_tags(FAMILIES["lhrm"], tokenizer).by_id.values()}
    assert dict(tags["<think>"].leads) == {"start": "reasoning"}
    assert set(tags["</think>"].leads) == {"start", "reasoning", "answer"}
    assert dict(tags["<no_think>"].leads) == {"start": "answer"}


def test_only_a_family_with_two_kinds_of_opening_chooses_its_mode() -> None:
    assert [name for name, family in FAMILIES.items() if family.chooses] == ["lhrm"]
