"""The tokenizer of an engine: client text, control text and chat templates to token ids.

Control tokens are ours. Text from a client never encodes to one: before a template is rendered, every control token
that client text spells is split by a seam, a Unicode noncharacter; the rendered text is cut at the seams and the
pieces are encoded apart, so that no piece spells a whole control token.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from inspect import signature
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

from jinja2 import TemplateError
from transformers import AutoTokenizer

from models.engines.base import InvalidRequest
from models.text.encoders import encoder, encoder_mode

SEAM = "\ufdd0"  # a noncharacter: never valid for interchange, so removing it from client text loses nothing
TEMPLATE_FIELD = "chat_template_kwargs"
NO_TEXT = re.compile(f"[{SEAM}\ud800-\udfff]")  # nor are surrogates, which JSON can spell and no tokenizer takes
PROBE = "first-probe-7f3"
LONG_TEXT = 32 * 1024  # characters


class HubTokenizer:
    """A Hugging Face fast tokenizer with its chat template; where the model has none, with vLLM's encoder for it, if it
    has one of this `mode`."""

    def __init__(
        self,
        path: str | Path,
        *,
        chat_template: str | None = None,
        revision: str | None = None,
        mode: str = "auto",
    ) -> None:
        self._hf = AutoTokenizer.from_pretrained(path, revision=revision)
        if not getattr(self._hf, "is_fast", False):
            raise ValueError(f"{path}: a fast tokenizer (tokenizer.json) is needed")
        if chat_template is not None:
            self._hf.chat_template = chat_template
        self.backend = self._hf.backend_tokenizer
        self._controls: dict[str, int] = {
            token.content: token_id for token_id, token in self._hf.added_tokens_decoder.items()
        }
        self.eos_ids: frozenset[int] = frozenset(() if self._hf.eos_token_id is None else (self._hf.eos_token_id,))
        self.vocab_size: int = len(self._hf)
        added = self._hf.added_tokens_decoder.values()
        self.special_texts: frozenset[str] = frozenset(token.content for token in added if token.special)
        self.template: str = _source(self._hf.chat_template)
        self.response_template: Mapping[str, Any] | None = getattr(self._hf, "response_template", None)
        self._apply: Callable[..., str] = self._hf.apply_chat_template
        self.control_texts: frozenset[str] = frozenset(self._controls)
        self._kept: frozenset[str] = frozenset()
        self.bos_text: str = self._hf.bos_token or ""
        self._own_arguments = frozenset(  # of templates: what a client sends under these names would replace our own
            {*signature(self._hf.apply_chat_template).parameters, *self._hf.special_tokens_map, "messages"}
        )
        if not self.template and (encoding := encoder_mode(path, revision, mode)):
            self._apply, self.template = encoder(self._hf, encoding)
        self.has_template: bool = bool(self.template)
        self.protect([self.template, *self.special_texts])

    def protect(self, texts: Iterable[str]) -> None:
        """Keeps from clients the control tokens that these texts hold. A vocabulary may have thousands of tokens that
        were added as text: they stay text."""
        spelled = (text for text in self._controls if text.strip() and len(text) > 1)
        held = "\0".join(texts)
        self._kept |= {text for text in spelled if text in held}
        longest_first = sorted(self._kept, key=len, reverse=True)
        self._control_start = re.compile(
            f"(?=(?:{'|'.join(map(re.escape, longest_first))}))" if self._kept else r"(?!)"
        )

    @cached_property
    def vocabulary(self) -> str:
        vocabulary = sorted(self.backend.get_vocab(with_added_tokens=True).items(), key=itemgetter(1))
        return sha256(repr(vocabulary).encode()).hexdigest()

    @cached_property
    def _wants_parts(self) -> bool:
        """Whether the template reads contents in parts only: a string would be lost."""

        def shows(message: Mapping[str, Any]) -> bool:
            options = {"tools": None, "tokenize": False, "add_generation_prompt": True, "continue_final_message": False}
            try:
                return PROBE in self._apply([message], **options)
            except (TemplateError, TypeError, ValueError):
                return False

        message = {"role": "user", "content": PROBE}
        return not shows(message) and shows(_in_parts(message))

    def guard(self, value: Any) -> Any:
        """A copy of a JSON value in which no string spells a control token: a seam follows its first character."""
        if isinstance(value, str):
            text = NO_TEXT.sub("", value)
            starts = [match.start() + 1 for match in self._control_start.finditer(text)]
            if not starts:
                return text
            return SEAM.join(text[a:b] for a, b in zip([0, *starts], [*starts, len(text)], strict=True))
        if isinstance(value, Mapping):
            return {self.guard(key): self.guard(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.guard(item) for item in value]
        return value

    def encode(self, text: str) -> list[int]:
        return self._encode_guarded(self.guard(text))

    def encode_control(self, text: str) -> list[int]:
        if len(text) > LONG_TEXT:  # a batch lets other threads run meanwhile
            return cast(list[int], self.backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)
        return cast(list[int], self.backend.encode(text, add_special_tokens=False).ids)

    def _encode_guarded(self, text: str) -> list[int]:
        if SEAM not in text:
            return self.encode_control(text)
        return [token_id for piece in text.split(SEAM) for token_id in self.encode_control(piece)]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return cast(str, self.backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens))

    def token_text(self, token_id: int) -> str:
        return cast(str, self.backend.decode([token_id], skip_special_tokens=False))

    def control_id(self, text: str) -> int | None:
        return self._controls.get(text)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        continue_final: bool = False,
        behind: str = "",
    ) -> list[int]:
        template_kwargs = template_kwargs or {}
        if self._wants_parts:
            messages = [_in_parts(message) for message in messages]
        if taken := self._own_arguments.intersection(template_kwargs):
            field = f"{TEMPLATE_FIELD}.{min(taken)}"
            raise InvalidRequest(f"{field}: not for clients to set", field)
        try:
            rendered = self._apply(
                self.guard(messages),
                tools=self.guard(tools) if tools else None,
                tokenize=False,
                add_generation_prompt=not continue_final,
                continue_final_message=continue_final,
                **self.guard(template_kwargs),
            )
        except TemplateError as error:  # templates refuse conversations that their model does not know
            raise InvalidRequest(f"the model's chat template refuses this conversation: {error}", "messages") from error
        except (TypeError, ValueError) as error:  # nor can they work with values of every type
            field = TEMPLATE_FIELD if template_kwargs else "messages"
            raise InvalidRequest(f"{field}: the model's chat template cannot render this: {error}", field) from error
        return self._encode_guarded(rendered if rendered.endswith(behind) else rendered + behind)


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _source(template: str | Mapping[str, str] | None) -> str:
    """The text of a chat template, or of all of them where a model has several."""
    return "\n".join(template.values()) if isinstance(template, Mapping) else template or ""
