"""DeepSeek V3.2 and V4 as they are published: a vocabulary without a template, and vLLM's program for their prompts."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from models.engines import VllmEngineConfig
from models.engines.base import InvalidRequest
from models.formats import FAMILIES
from models.formats.prompt import TemplateInput, render
from models.formats.template import find_family, prove, writes_calls
from models.text.encoders import ENCODERS
from models.text.tokenizer import HubTokenizer
from tests.families.corpus import ALL, corpus, model_folder
from tests.families.test_models import TOOLS, USER, conversations

pytest.importorskip("vllm")
pytestmark = pytest.mark.skipif(isinstance(corpus(), str), reason=str(corpus()))

PUBLISHED = {"DeepSeek-V3.2": "DeepseekV32ForCausalLM", "DeepSeek-V4": "DeepseekV4ForCausalLM"}


def published(folder: Path, name: str) -> Path:
    """The model's folder without weights, as it is on the hub."""
    model_folder(folder, name)
    (folder / "chat_template.jinja").unlink()
    (folder / "config.json").write_text(json.dumps({"architectures": [PUBLISHED[name]]}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=PUBLISHED)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, HubTokenizer]:
    name = str(request.param)
    return name, HubTokenizer(published(tmp_path_factory.mktemp("published"), name))


def test_the_family_proves_itself_and_is_found(model: tuple[str, HubTokenizer]) -> None:
    name, tokenizer = model
    form = FAMILIES[ALL[name].family]
    assert prove(form, tokenizer).fault == ""
    assert writes_calls(form, tokenizer)
    assert find_family(tokenizer, FAMILIES)[0].name == form.name


def test_prompts_are_the_programs_own_token_for_token(model: tuple[str, HubTokenizer]) -> None:
    name, tokenizer = model
    form, mode_name = FAMILIES[ALL[name].family], ENCODERS[PUBLISHED[name]]
    own = getattr(import_module(f"vllm.tokenizers.{mode_name}"), f"get_{mode_name}_tokenizer")(tokenizer._hf)
    for kind, (messages, offers) in conversations(form).items():
        tools = [tool.as_template_input() for tool in TOOLS] if offers else []
        turns = [{**turn, "reasoning": turn.get("reasoning_content")} for turn in messages]
        for mode in form.able:
            ids = own.apply_chat_template(turns, tools=tools, **form.modes[mode])
            assert render(form, tokenizer, TemplateInput(messages, tools), mode) == ids, (kind, mode)


def test_a_turn_of_the_assistant_cannot_be_gone_on_with(model: tuple[str, HubTokenizer]) -> None:
    with pytest.raises(InvalidRequest, match="cannot go on with a turn of the assistant"):
        model[1].render([USER, {"role": "assistant", "content": "It"}], continue_final=True)


def test_a_client_cannot_slip_another_conversation_in(model: tuple[str, HubTokenizer]) -> None:
    with pytest.raises(InvalidRequest, match="not for clients to set"):
        model[1].render([USER], template_kwargs={"conversation": []})


def test_an_engine_loads_the_program_that_it_is_told_of(tmp_path: Path) -> None:
    folder = published(tmp_path / "model", "DeepSeek-V4")
    (folder / "config.json").unlink()
    assert not VllmEngineConfig(model=str(folder)).load_tokenizer().has_template
    told = VllmEngineConfig(model=str(folder), args={"tokenizer_mode": "deepseek_v4"}).load_tokenizer()
    assert find_family(told, FAMILIES)[0].name == "deepseek_v4"
