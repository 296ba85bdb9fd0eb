"""What the model reads: the conversation in its own template, and the forced beginning of its reply."""

from collections.abc import Sequence
from dataclasses import dataclass

from controllers.generation.events import Conversation
from controllers.generation.route import Route
from controllers.policy.controls import Wish
from controllers.policy.fold import Policy


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt's token ids, up to where the engine goes on. `opening` are those at its end that belong to the reply:
    they say whether its thinking is open, closed, or not begun."""

    token_ids: list[int]
    opening: Sequence[int] = ()


def render_prompt(route: Route, request: Conversation, mode: Wish, policy: Policy) -> RenderedPrompt:
    """The conversation in a mode. `auto` leaves the beginning of the reply to the model."""
    tokenizer = route.engine.tokenizer
    token_ids = tokenizer.render(request.messages, request.tools, request.template_kwargs, request.continue_final)
    opening = () if mode == "auto" else _prefix(route, mode, policy.prefill)
    return RenderedPrompt([*token_ids, *opening], opening)


def _prefix(route: Route, mode: Wish, budget: int | None) -> Sequence[int]:
    """The forced beginning of a reply: its mode's, or the model's own budget field, filled in."""
    if budget is not None and route.family.budget is not None:
        return route.engine.tokenizer.encode_control(route.family.budget_field(budget))
    return route.prefixes[mode]  # type: ignore[index]


def prompt_tokens(route: Route, request: Conversation, policy: Policy) -> int:
    """How many tokens the prompt of such a request has; where the mode is still to be chosen, without its prefix."""
    return len(render_prompt(route, request, policy.mode, policy).token_ids)
