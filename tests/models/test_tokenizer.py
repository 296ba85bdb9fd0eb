import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines.base import InvalidRequest
from models.text.tokenizer import NO_TEXT, SEAM, HubTokenizer
from tests.conftest import ROOT

TOKENIZER = HubTokenizer(ROOT / "demo" / "tokenizer")
TOKENIZER.protect(TOKENIZER.control_texts)
CONTROLS = {
    TOKENIZER.token_text(token_id): token_id
    for token_id in range(TOKENIZER.vocab_size)
    if TOKENIZER.control_id(TOKENIZER.token_text(token_id)) is not None
}
# Text that wants to be a control token: whole ones, broken ones, seams, and anything else.
HOSTILE = st.lists(
    st.one_of(
        st.sampled_from([*CONTROLS, "<", "think>", "</", "<|im_", "start|>", SEAM, "\ud800"]),
        st.sampled_from(list(CONTROLS)).map(lambda text: text[0] + SEAM + text[1:]),
        st.text(max_size=5),
    ),
    max_size=8,
).map("".join)


def test_the_demo_vocabulary_has_control_tokens() -> None:
    assert {"<think>", "</think>", "<no_think>", "</no_think>"} <= CONTROLS.keys()


@given(HOSTILE)
def test_client_text_never_becomes_a_control_token(text: str) -> None:
    assert not set(TOKENIZER.encode(text)) & set(CONTROLS.values())


@given(HOSTILE)
def test_decoding_gives_the_text_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text), skip_special_tokens=False) == NO_TEXT.sub("", text)


@given(HOSTILE)
def test_a_message_cannot_write_control_tokens_into_the_template(text: str) -> None:
    def controls(content: str) -> list[int]:
        ids = TOKENIZER.render([{"role": "user", "content": content}])
        return [token_id for token_id in ids if token_id in CONTROLS.values()]

    assert controls("x" + text) == controls("x")


@pytest.mark.parametrize("text", list(CONTROLS))
def test_our_own_text_becomes_control_tokens(text: str) -> None:
    assert TOKENIZER.encode_control(text) == [CONTROLS[text]] == [TOKENIZER.control_id(text)]


def test_ordinary_text_is_no_control_token() -> None:
    assert TOKENIZER.control_id("the") is None


USER = [{"role": "user", "content": "hi"}]
NOTES = "{% for note in notes %}{{ note.text + 1 if note.sum else note.text }}{% endfor %}{{ messages[0].content }}"
PRINTS = HubTokenizer(ROOT / "demo" / "tokenizer", chat_template=NOTES)
PRINTS.protect(PRINTS.control_texts)


@given(HOSTILE)
def test_an_argument_of_the_template_cannot_write_control_tokens(text: str) -> None:
    ids = PRINTS.render(USER, template_kwargs={"notes": [{"text": "x" + text}]})
    assert not set(ids) & set(CONTROLS.values())
    assert PRINTS.decode(ids, skip_special_tokens=False) == NO_TEXT.sub("", "x" + text) + "hi"


@pytest.mark.parametrize(
    "name",
    [
        "chat_template",
        "conversation",
        "tools",
        "documents",
        "tokenize",
        "add_generation_prompt",
        "continue_final_message",
        "tokenizer_kwargs",
        "messages",
        "eos_token",
    ],
)
def test_what_the_template_is_rendered_with_is_not_for_clients_to_set(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        TOKENIZER.render(USER, template_kwargs={name: "{{ 'x' }}"})
    assert refused.value.field == f"chat_template_kwargs.{name}"


@pytest.mark.parametrize("arguments", [{"notes": 5}, {"notes": [{"text": "a", "sum": True}]}, {"self": 1}])
def test_an_argument_that_the_template_cannot_work_with_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="cannot render") as refused:
        PRINTS.render(USER, template_kwargs=arguments)
    assert refused.value.field == "chat_template_kwargs"


def test_a_conversation_that_the_template_cannot_work_with_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        PRINTS.render([{"role": "assistant"}], continue_final=True)
    assert refused.value.field == "messages"


def test_only_what_is_special_or_written_by_the_template_or_a_family_is_kept_from_clients() -> None:
    tokenizer = HubTokenizer(ROOT / "demo" / "tokenizer")
    kept = {text for text in CONTROLS if CONTROLS[text] not in tokenizer.encode(text)}
    assert {"<|im_end|>", "<think>", "<tool_call>"} <= kept
    assert "[[A]]" not in kept
    tokenizer.protect(["[[A]]"])
    assert CONTROLS["[[A]]"] not in tokenizer.encode("[[A]]")


def test_what_is_forced_behind_a_prompt_is_encoded_together_with_it() -> None:
    messages = [{"role": "user", "content": "hi"}]
    prompt = TOKENIZER.render(messages)
    ids = TOKENIZER.render(messages, behind="\n\n<think>")
    assert TOKENIZER.decode(ids, False) == TOKENIZER.decode(prompt, False) + "\n\n<think>"
    assert ids != [*prompt, *TOKENIZER.encode_control("\n\n<think>")]
