"""What a request of any chat-like API comes to: one form, whatever its fields were called."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controllers.generation.answer_format import AnswerFormat, shape
from controllers.generation.events import Conversation, Interrupt
from controllers.generation.route import Route
from controllers.policy.controls import BUDGET_NAMES, TEMPLATE_HINTS, PolicyError
from controllers.policy.fold import Policy
from models.engines.base import Grammar, Sampling
from models.tool_calls.tools import Choice, Tool
from server.apis.shared.messages import begun_answer, fitted
from server.config.load import ServerConfig


@dataclass(frozen=True, slots=True)
class OutputConstraints:
    """How the answer is wanted. `allowed` are the only tools that may be called (None: all), `format_field` is the
    API's name for what `text` came from. `custom` are the tools whose input is one string, `namespaces` the namespace
    and the name there of tools that their client keeps in namespaces."""

    tools: Sequence[Tool] = ()
    choice: Choice = "auto"
    allowed: frozenset[str] | None = None
    parallel: bool = True
    text: Grammar | None = None
    format_field: str = "response_format"
    custom: frozenset[str] = frozenset()
    namespaces: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def shown(self) -> Sequence[Tool]:
        """The tools that the model is told of."""
        return () if self.choice == "none" else self.tools

    def shape(self, route: Route) -> AnswerFormat | None:
        """The answer's shape on a route. Raises `PolicyError` for what its model cannot do."""
        if self.shown and route.calls is None:
            raise PolicyError("tools: the model of this route is shown no tools", "tools")
        offered = [tool for tool in self.shown if self.allowed is None or tool.name in self.allowed]
        try:
            return shape(
                route.calls,
                offered,
                self.choice,
                single=not self.parallel,
                text=self.text,
                constrained=route.calls_constrained,
            )
        except ValueError as error:
            field = self.format_field if self.text is not None else "tool_choice"
            raise PolicyError(f"{field}: {error}", field) from error


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request in the controllers' words. `sampling` gives its own over a route's defaults; `conversation_field` is
    the API's name for the messages. `hosted` are the fields of tools that nobody here runs, with the kind of each;
    `notes` say what else of the request is not done."""

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
    hosted: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def check(self, settings: ServerConfig, policy: Policy) -> None:
        """Raises `PolicyError` for what the server's settings do not allow."""
        check_replies({"n": self.n, "reasond.best_of": policy.best_of}, settings.max_replies)
        if self.hosted and settings.refuse_hosted_tools:
            field, kind = next(iter(self.hosted.items()))
            raise PolicyError(f"{field}.type: {kind} is run by nobody here", f"{field}.type")

    def conversation(self, route: Route, interrupt: Interrupt) -> Conversation:
        """The conversation as the model of a route reads it. Raises `PolicyError` for what it cannot do."""
        tags = route.family.thinking
        read = fitted(self.messages, route.system_place, tags, continued=self.continue_final, sees=route.sees)
        if self.continue_final and self.answer.text is not None and begun_answer(read.turns[-1], tags):
            field = self.answer.format_field
            raise PolicyError(f"{field}: the answer has begun, and a format holds for a whole answer", field)
        hosted = (f"{field}: {kind} is run by nobody here and was left out" for field, kind in self.hosted.items())
        arguments, unread = self._template_arguments(route.engine.tokenizer.template)
        return Conversation(
            messages=read.turns,
            tools=[tool.as_template_input() for tool in self.answer.shown],
            template_kwargs=arguments,
            continue_final=self.continue_final,
            cache_salt=self.cache_salt,
            interrupt=interrupt,
            shape=self.answer.shape(route),
            notes=(*self.notes, *hosted, *unread, *read.notes),
            images=read.images,
        )

    def _template_arguments(self, template: str) -> tuple[dict[str, Any], list[str]]:
        """What the template is given, and notes of hints that it has no argument for. Raises `PolicyError` for an
        argument that it never mentions: nothing would come of it."""

        def known(name: str) -> bool:
            return re.search(rf"\b{re.escape(name)}\b", template) is not None

        for name, value in self.template_kwargs.items():
            if value is not None and not known(name):
                field = f"chat_template_kwargs.{name}"
                instead = f"; send {name} by itself" if name in BUDGET_NAMES else ""
                raise PolicyError(f"{field}: this model's chat template reads no such argument{instead}", field)
        thinking = self.controls.get("thinking")
        hints = {key: value for key, value in thinking.items() if key in TEMPLATE_HINTS} if thinking else {}
        unread = [f"thinking.{key}: this model's chat template does not know it" for key in hints if not known(key)]
        return {**{key: value for key, value in hints.items() if known(key)}, **self.template_kwargs}, unread


def check_replies(counts: Mapping[str, int], limit: int) -> None:
    """Raises `PolicyError` where fields that multiply ask for more replies than one request may have."""
    if (replies := math.prod(counts.values())) > limit:
        names = " and ".join(counts)
        raise PolicyError(
            f"{names} make {replies} replies; this server draws at most {limit} a request", next(iter(counts))
        )
