"""What a request of any chat-like API comes to: one form, whatever its fields were called."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controllers.generation.answer_format import AnswerFormat, shape
from controllers.generation.route import Route
from controllers.policy.controls import PolicyError
from models.engines.base import Grammar, Sampling
from models.tool_calls.tools import Choice, Tool


@dataclass(frozen=True, slots=True)
class OutputConstraints:
    """How the answer is wanted. `named` is the only tool that may be called, `format_field` the API's name for what
    `text` came from."""

    tools: Sequence[Tool] = ()
    choice: Choice = "auto"
    named: str | None = None
    parallel: bool = True
    text: Grammar | None = None
    format_field: str = "response_format"

    @property
    def shown(self) -> Sequence[Tool]:
        """The tools that the model is told of."""
        return () if self.choice == "none" else self.tools

    def shape(self, route: Route) -> AnswerFormat | None:
        """The answer's shape on a route. Raises `PolicyError` for what its model cannot do."""
        if self.shown and route.calls is None:
            raise PolicyError("tools: the model of this route is shown no tools", "tools")
        offered = [tool for tool in self.shown if self.named in (None, tool.name)]
        single = not self.parallel or self.named is not None
        try:
            return shape(
                route.calls, offered, self.choice, single=single, text=self.text, constrained=route.calls_constrained
            )
        except ValueError as error:
            field = self.format_field if self.text is not None else "tool_choice"
            raise PolicyError(f"{field}: {error}", field) from error


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request in the controllers' words. `sampling` gives its own over a route's defaults; `conversation_field` is
    the API's name for the messages."""

    model: str
    controls: Mapping[str, Any]
    messages: Sequence[Mapping[str, Any]]
    sampling: Callable[[Sampling], Sampling]
    answer: OutputConstraints = field(default_factory=OutputConstraints)
    n: int = 1
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    continue_final: bool = False
    cache_salt: str | None = None
    conversation_field: str = "messages"
