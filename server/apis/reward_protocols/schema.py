"""The bodies that trainers send. Their shapes are theirs: fields that we do not read are let pass, not refused."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from controllers.judging.scoring import Criterion
from controllers.policy.controls import MOST_REPLIES
from server.apis.shared.sampling_fields import Count, Text

MOST_TEXTS = 1024
Texts = Annotated[list[Text], Field(max_length=MOST_TEXTS)]
Replies = Annotated[list[Any], Field(max_length=MOST_REPLIES)]
REFERENCES = ("reference", "expected_answer", "ground_truth", "label")


class _Theirs(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class _WithCriterion(_Theirs):
    """Extensions to every one of them: what a single reply is held against."""

    reference: Text | None = None
    rubric: Text | None = None
    rival: Text | None = None

    @property
    def yardstick(self) -> Criterion:
        return yardstick_in({"reference": self.reference, "rubric": self.rubric, "rival": self.rival})


def yardstick_in(fields: Mapping[str, Any]) -> Criterion:
    """The first of reference (under whichever of its names), rubric and rival that says something."""
    references = (text for name in REFERENCES if (text := written(fields.get(name))).strip())
    return Criterion.of(next(references, None), written(fields.get("rubric")), written(fields.get("rival")))


def written(value: Any) -> str:
    """A value of a data set as a judge reads it: text as it is, anything else as JSON, null as nothing."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Part(_Theirs):
    """A part of a message's content; one that is no text, an image, says nothing here."""

    text: Text | None = None


Content = Text | list[Part] | None


def text_in(content: Content) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)


class Turn(_Theirs):
    """A message of any of OpenAI's APIs."""

    role: Text = "user"
    content: Content = None


def turns(messages: Sequence[Turn]) -> list[dict[str, str]]:
    """Messages as roles and text."""
    return [{"role": message.role, "content": text_in(message.content)} for message in messages]


class GetReward(_Theirs):
    """OpenRLHF. `query[i]` is prompt and reply in one, special tokens and all."""

    query: Texts
    prompts: Texts | None = None
    labels: Annotated[list[Any], Field(max_length=MOST_TEXTS)] | None = None

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        for name in ("prompts", "labels"):
            given = getattr(self, name)
            if given and len(given) != len(self.query):
                raise ValueError(f"{name}: {len(given)} for {len(self.query)} queries")
        return self


class SlimeReward(_WithCriterion):
    prompt: Text | list[Turn]
    response: Text
    label: Any = None


class Classify(_WithCriterion):
    """verl. `input` is a conversation through a chat template. `use_activation` changes nothing: scores are 0-1."""

    input: Text | Texts
    model: Text | None = None


class Score(_WithCriterion):
    """vLLM: one query to several documents, or as many queries as documents. `text_1` and `text_2` are older names."""

    model: Text | None = None
    queries: Text | Texts | None = None
    documents: Text | Texts | None = None
    text_1: Text | Texts | None = None
    text_2: Text | Texts | None = None

    @model_validator(mode="after")
    def _paired(self) -> Self:
        for new, old in (("queries", "text_1"), ("documents", "text_2")):
            if (getattr(self, new) is None) == (getattr(self, old) is None):
                raise ValueError(f"{new}: needed, once")
        queries, documents = len(self.pairs_from), len(self.replies)
        if queries not in (1, documents):
            raise ValueError(f"queries: {queries} for {documents} documents; give one, or as many as documents")
        return self

    @property
    def pairs_from(self) -> list[str]:
        return _listed(self.text_1 if self.queries is None else self.queries)

    @property
    def replies(self) -> list[str]:
        return _listed(self.text_2 if self.documents is None else self.documents)


def _listed(texts: str | list[str] | None) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts or ())


class Document(_Theirs):
    text: Text


class Rerank(_WithCriterion):
    """Cohere, Jina, vLLM."""

    model: Text | None = None
    query: Text
    documents: Annotated[list[Text | Document], Field(max_length=MOST_REPLIES)]
    top_n: Annotated[Count, Field(ge=0)] | None = None
    return_documents: bool = True

    @property
    def replies(self) -> list[str]:
        return [document if isinstance(document, str) else document.text for document in self.documents]


class OutputItem(_Theirs):
    type: Text = "message"
    content: Content = None


class ResponseObject(_Theirs):
    """A reply in the form of OpenAI's Responses API: the text of its messages counts."""

    output: list[OutputItem]

    @property
    def text(self) -> str:
        return "".join(text_in(item.content) for item in self.output if item.type == "message").strip()


class CreateParams(_Theirs):
    input: Text | list[Turn]


class Verify(_Theirs):
    """NeMo-Gym. The answer is the same body with a reward, so all of it is kept."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    responses_create_params: CreateParams
    response: ResponseObject

    @property
    def yardstick(self) -> Criterion:
        extra = self.model_extra or {}
        metadata = extra.get("verifier_metadata")
        inner = metadata if isinstance(metadata, dict) else {}
        return yardstick_in(inner | {name: value for name, value in extra.items() if value is not None})


class Compare(_Theirs):
    """NeMo-Gym's comparison of several replies to one conversation, by an extra principle if there is one."""

    conversation_history: list[Turn]
    response_objs: Annotated[list[ResponseObject], Field(max_length=MOST_REPLIES)]
    principle: Text | None = None
