"""What the model reads: the conversation in its own template, and the forced beginning of its reply."""

from collections.abc import Sequence

from controllers.generation.events import Conversation
from controllers.policy.fold import Policy
from controllers.route import Route
from models.formats.families import Mode


def rendered(route: Route, request: Conversation) -> list[int]:
    """The conversation's token ids, up to where the reply begins."""
    tokenizer = route.engine.tokenizer
    return tokenizer.render(request.messages, request.tools, request.template_kwargs, bool(request.continue_final))


def prefix(route: Route, mode: Mode, budget: int | None) -> Sequence[int]:
    """The forced beginning of a reply: its mode's, or the model's own budget field, filled in."""
    if budget is not None and route.family.budget is not None:
        return route.engine.tokenizer.encode_control(route.family.budget_field(budget))
    return route.prefixes[mode]


def prompt_tokens(route: Route, request: Conversation, policy: Policy) -> int:
    """How many tokens the prompt of such a request has; where the mode is still to be chosen, without its prefix."""
    forced = () if policy.mode == "auto" else prefix(route, policy.mode, policy.prefill)
    return len(rendered(route, request)) + len(forced)
