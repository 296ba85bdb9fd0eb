"""Fields that several requests share."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    create_model,
    field_validator,
)

from controllers.policy.controls import CONTROLS, TEMPLATE_CONTROLS, control_schema
from models.engines.base import Sampling
from server.config.sampling import (
    FrequencyPenalty,
    MaxTokens,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
)
from server.edges.errors import UNKNOWN_TYPE

StopString = Annotated[str, Field(min_length=1, max_length=1000)]
TokenId = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]


def _written(value: dict[str, Any]) -> dict[str, Any]:
    """Raises `ValueError` for numbers and depths that JSON can spell and no other end of the wire would read."""
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_written)]
Limit = Annotated[MaxTokens | None, BeforeValidator(lambda value: None if value == -1 else value)]
"""The most tokens of a reply; -1 is how clients of llama.cpp say that there is no limit."""

MAX_STOPS = 64


class Body(BaseModel):
    """A request body: fields that it does not name are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def by_type() -> Discriminator:
    """Tells the members of a union by their `type`. Its tags, `of_type`, do not look like fields: in the path of an
    error they are left out."""

    def tag(value: Any) -> str:
        kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
        return f"<{kind}>" if isinstance(kind, str) else "<>"

    return Discriminator(tag, custom_error_type=UNKNOWN_TYPE, custom_error_message="unknown type")


def of_type(kind: str) -> Tag:
    return Tag(f"<{kind}>")


class StreamOptions(Body):
    include_usage: Flag = False
    continuous_usage_stats: Flag = False
    include_obfuscation: Flag = False  # padding against traffic analysis: there is none to leave out


class SamplingFields(Body):
    """Sampling as every API here names it, with the fields that vLLM's server adds."""

    min_tokens: Annotated[Count, Field(ge=0, lt=2**31)] = 0
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    presence_penalty: PresencePenalty | None = None
    frequency_penalty: FrequencyPenalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    seed: Annotated[Count, Field(ge=-(2**63), lt=2**63)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=1024)] | None = None
    include_stop_str_in_output: Flag = False
    ignore_eos: Flag = False
    skip_special_tokens: Flag = True
    spaces_between_special_tokens: Flag = True
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=4096)] | None = None
    bad_words: Annotated[list[StopString], Field(max_length=256)] | None = None
    priority: Annotated[Count, Field(ge=-(2**31), lt=2**31)] = 0
    cache_salt: Annotated[Text, Field(min_length=1, max_length=256)] | None = None

    @field_validator("logit_bias")
    @classmethod
    def _of_token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and not all(key.isascii() and key.isdigit() for key in value):
            raise ValueError("keys must be token ids")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, whatever their API calls them."""
        return ()

    def sampling(self, defaults: Sampling, *, max_tokens: int | None, logprobs: int | None) -> Sampling:
        """The request's sampling over the route's defaults. What both leave open stays None: the engine's default."""

        def over(asked: Any, default: Any) -> Any:
            return default if asked is None else asked

        return Sampling(
            max_tokens=over(max_tokens, defaults.max_tokens),
            min_tokens=self.min_tokens,
            temperature=over(self.temperature, defaults.temperature),
            top_p=over(self.top_p, defaults.top_p),
            top_k=over(self.top_k, defaults.top_k),
            min_p=over(self.min_p, defaults.min_p),
            presence_penalty=over(self.presence_penalty, defaults.presence_penalty),
            frequency_penalty=over(self.frequency_penalty, defaults.frequency_penalty),
            repetition_penalty=over(self.repetition_penalty, defaults.repetition_penalty),
            seed=over(self.seed, defaults.seed),
            stop=self.stops or defaults.stop,
            include_stop=self.include_stop_str_in_output,
            stop_token_ids=tuple(self.stop_token_ids or defaults.stop_token_ids),
            ignore_eos=self.ignore_eos,
            skip_special_tokens=self.skip_special_tokens,
            logprobs=logprobs,
            logit_bias={int(key): value for key, value in self.logit_bias.items()} if self.logit_bias else None,
            allowed_token_ids=tuple(self.allowed_token_ids or ()),
            bad_words=tuple(self.bad_words or ()),
            priority=self.priority,
        )


class OpenAISampling(SamplingFields):
    """What OpenAI's chat and completion APIs add."""

    max_tokens: Limit = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    n: Annotated[Count, Field(ge=1, le=128)] | None = None
    separate_reasoning: Literal[True] | None = None  # SGLang's; thinking always has its own field
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: Flag | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


IGNORED_FIELDS = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "request_id",
    "verbosity",
    "session_id",
    "stream_interval",
    "cache_prompt",
    "timings_per_token",
)
"""Fields that clients are known to send and that change nothing about a reply here: accepted and not read."""


B = TypeVar("B", bound=Body)


def with_fields(*fields: str) -> Callable[[type[B]], type[B]]:
    """A class with fields of any JSON beside its own. The OpenAPI document tells what controls may hold."""

    def extended(base: type[B]) -> type[B]:
        untyped: dict[str, Any] = {field: (_any(field), None) for field in fields}
        return create_model(base.__name__, __base__=base, __doc__=base.__doc__, **untyped)

    return extended


def _any(field: str) -> Any:
    return Annotated[Any, WithJsonSchema(control_schema(field))] if field in CONTROLS else Any


@with_fields(*CONTROLS, *IGNORED_FIELDS)
class Controlled(Body):
    """A body that may carry every control, read by the policy, and fields that are accepted and not read."""

    def controls(self) -> Mapping[str, Any]:
        """The control fields as sent, for `controllers.policy.fold.fold`."""
        return {name: value for name in CONTROLS if (value := getattr(self, name, None)) is not None}

    @property
    def template_kwargs(self) -> Mapping[str, Any]:
        """What else is in `chat_template_kwargs`: arguments of the model's own chat template."""
        sent = getattr(self, "chat_template_kwargs", None)
        arguments = sent if isinstance(sent, dict) else {}
        return {key: value for key, value in arguments.items() if key not in TEMPLATE_CONTROLS}
