"""Families read from response templates, those that TRL wrote for public models: no built-in family helps."""

import pytest

from models.formats import FAMILIES
from models.formats.prompt import TemplateInput, opening_of, render
from models.formats.shipped import shipped
from models.formats.template import find_family
from models.formats.vocabulary import compile_tags
from tests.families.corpus import ALL, corpus, tokenizer_of
from tests.families.test_models import USER, read, replies, section_of

pytestmark = pytest.mark.skipif(isinstance(corpus(), str), reason=str(corpus()))
SPECS = {
    "Qwen3": ("qwen3_template", True),
    "Qwen3.5": ("qwen3_5_template", False),
    "DeepSeek-R1 (distilled)": ("deepseek_r1_distill_template", False),
    "GLM-4.6": ("glm4moe_template", False),
    "gpt-oss": ("gptoss_template", False),
    "Nemotron 3 Nano": ("nemotron_3_template", False),
    "Gemma 4": ("gemma4_template", True),
    "LFM2.5": ("lfm2_2_5_template", False),
}
"""The response template of a model, and whether the calls of the corpus are read by it."""


@pytest.mark.parametrize("model", SPECS)
def test_a_model_is_served_by_its_own_response_template_alone(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = pytest.importorskip("trl.chat_template_utils")
    spec, calls = SPECS[model]
    own, tokenizer = FAMILIES[ALL[model].family], tokenizer_of(model)
    monkeypatch.setattr(tokenizer, "response_template", getattr(specs, spec))
    form, _ = find_family(tokenizer, {"plain": FAMILIES["plain"]})
    assert form.name.startswith("response_template")
    for mode in set(form.able) & set(own.able):
        prompt = render(form, tokenizer, TemplateInput([USER]), mode)
        opening = opening_of(compile_tags(form, tokenizer), prompt)
        for kind, (text, expected) in replies(own, section_of(form, tokenizer, prompt)).items():
            if kind in ("no thinking", "thinking", "cut off") or (calls and kind == "1 calls"):
                assert read(form, tokenizer, opening, text) == expected, (kind, mode)


def test_what_cannot_be_read_is_left_out() -> None:
    assert shipped(None) == {}
    assert shipped({"fields": {"content": {"close": "<end>"}}}) == {}
    assert shipped({"fields": {"thinking": {"open": "<t>", "close_pattern": "[</]t>|$"}}}) == {}
    odd = {"thinking": {"open": "<t>", "close": ["</t>", "</u>"]}, "tool_calls": {"open_pattern": "<(a|b)>"}}
    read_as = shipped({"fields": odd})["response_template, always"]
    assert (read_as.thinking, read_as.tools, read_as.able) == (("<t>", "</t>"), None, ("think",))
