"""`POST /v1/rewards/compare`, `/rank` and `/score`: one item in the body itself, or thousands in `items`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SkipValidation, model_validator

from controllers.judging.scoring import Criterion
from controllers.policy.controls import CONTROLS, MOST_REPLIES
from server.apis.shared.messages import Message
from server.apis.shared.sampling_fields import Body, Count, Flag, Text, with_fields
from server.config.sampling import MaxTokens, Temperature, TopP
from server.edges.errors import validated

MAX_ITEMS, MAX_VOTES = 100_000, 128


class Item(Body):
    """A prompt: `query`, or the conversation in `messages`."""

    query: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)] | None = None
    replies: list[Text]

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.query is None) == (self.messages is None):
            raise ValueError("query: either query or messages is needed")
        return self


class CompareItem(Item):
    """Two replies: which is better."""

    replies: Annotated[list[Text], Field(min_length=2, max_length=2)]


class RankItem(Item):
    """Two or more replies, to be put in order."""

    replies: Annotated[list[Text], Field(min_length=2, max_length=MOST_REPLIES)]


class ScoreItem(Item):
    """Replies to grade: against each other, or each against what is given."""

    replies: Annotated[list[Text], Field(max_length=MOST_REPLIES)]
    reference: Annotated[Text, Field(min_length=1)] | None = None
    rubric: Annotated[Text, Field(min_length=1)] | None = None
    rival: Annotated[Text, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_criterion(self) -> Self:
        if sum(text is not None for text in (self.reference, self.rubric, self.rival)) > 1:
            raise ValueError("reference: only one of reference, rubric and rival")
        return self

    @property
    def criterion(self) -> Criterion:
        return Criterion.of(self.reference, self.rubric, self.rival)


_CONTROLS = tuple(name for name in CONTROLS if name != "include_reasoning")


@with_fields(*_CONTROLS)
class RewardBody(Body):
    """What all three take: the judge and how it judges. Items are checked one by one, so that one may fail alone."""

    of: ClassVar[type[Item]]
    names: ClassVar[tuple[str, ...]] = ("query", "messages", "replies")

    model: Annotated[Text, Field(max_length=256)] | None = None
    items: Annotated[list[Any], Field(max_length=MAX_ITEMS)] | None = None
    query: SkipValidation[Text | None] = None
    messages: SkipValidation[list[Message] | None] = None
    replies: SkipValidation[list[Text] | None] = None
    votes: Annotated[Count, Field(ge=1, le=MAX_VOTES)] | None = None
    seed: Annotated[Count, Field(ge=-(2**63), lt=2**63)] = 0
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: MaxTokens | None = None
    priority: Annotated[Count, Field(ge=-(2**31), lt=2**31)] = 0
    cache_salt: Annotated[Text, Field(min_length=1, max_length=256)] | None = None
    include_reasoning: Flag = False
    stream: Flag = False

    @property
    def inline(self) -> dict[str, Any]:
        """The item in the body itself."""
        return {name: value for name in self.names if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _one_or_many(self) -> Self:
        if self.items is not None and self.inline:
            raise ValueError(f"items: not beside {next(iter(self.inline))}")
        return self

    def item(self, sent: Any) -> Item:
        """One item, checked. Raises `InvalidBody`."""
        return validated(self.of.model_validate, sent)

    def controls(self) -> Mapping[str, Any]:
        return {name: value for name in _CONTROLS if (value := getattr(self, name)) is not None}


class CompareRequest(RewardBody):
    of = CompareItem


class RatedBody(RewardBody):
    """How a group is rated."""

    rating: Literal["bradley_terry", "elo"] = "bradley_terry"
    elo_k: Annotated[float, Field(gt=0, le=1000)] = 32.0
    elo_start: Annotated[float, Field(ge=-100_000, le=100_000)] = 1000.0
    teams: Flag | None = None


class RankRequest(RatedBody):
    of = RankItem

    method: Literal["round_robin", "knockout"] = "round_robin"


class ScoreRequest(RatedBody):
    of = ScoreItem
    names = ("query", "messages", "replies", "reference", "rubric", "rival")

    reference: SkipValidation[Text | None] = None
    rubric: SkipValidation[Text | None] = None
    rival: SkipValidation[Text | None] = None
