"""What the model reads: the conversation in its own template and mode, and the forced beginning of its reply."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from controllers.concurrency import off_loop
from controllers.generation.events import Conversation
from controllers.generation.route import Route
from controllers.policy.controls import EFFORTS, UNLIMITED, Wish
from controllers.policy.fold import Policy
from models.formats.prompt import TemplateInput, opening_of, render
from models.formats.reasoning import effort_word


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt's token ids, up to where the engine goes on. `opening` are those at its end that belong to the reply:
    they say whether its thinking is open, closed, or not begun. `image_inputs` is what the engine made of its images.
    """

    token_ids: list[int]
    opening: Sequence[int] = ()
    image_inputs: Any = None


async def prompt_of(route: Route, request: Conversation, mode: Wish, policy: Policy) -> RenderedPrompt:
    """The conversation in a mode, rendered in a thread where it is long: other replies go on meanwhile."""
    prompt = await off_loop(request.characters, partial(render_prompt, route, request, mode, policy))
    if not request.images or route.engine.process_images is None:
        return prompt
    seen = await route.engine.process_images(prompt.token_ids, request.images)
    return replace(prompt, token_ids=seen.token_ids, image_inputs=seen.image_inputs)


def render_prompt(route: Route, request: Conversation, mode: Wish, policy: Policy) -> RenderedPrompt:
    """The conversation in a mode. `auto` leaves the beginning of the reply to the model."""
    if (begun := _begun_thought(route, request, policy)) is not None:
        return begun
    given = TemplateInput(request.messages, request.tools, request.template_kwargs, request.continue_final)
    field = route.family.budget_field(policy.prefill) if policy.prefill is not None and mode != "auto" else ""
    token_ids = render(
        route.family,
        route.engine.tokenizer,
        given,
        None if mode == "auto" else mode,
        template_arguments(route, mode, policy),
        field or None,
    )
    return RenderedPrompt(token_ids, opening_of(route.tags, token_ids, continued=request.continue_final))


def _begun_thought(route: Route, request: Conversation, policy: Policy) -> RenderedPrompt | None:
    """A prompt that goes on from a turn which begins with a thought, in the model's own tags; None where the last turn
    begins with no thought. Behind an open thought the model thinks on, behind a closed one it answers."""
    pair, text = route.family.thinking, str(request.messages[-1].get("content") or "").lstrip()
    if not request.continue_final or pair is None or not text.startswith(pair[0]):
        return None
    thought, closed, answer = text.removeprefix(pair[0]).partition(pair[1])
    asked = replace(request, messages=request.messages[:-1], continue_final=False)
    prompt, tokenizer = render_prompt(route, asked, "think", policy), route.engine.tokenizer
    begun = [] if prompt.opening else tokenizer.encode_control(pair[0])
    begun += tokenizer.encode(thought.lstrip("\n") if prompt.opening else thought)
    begun += [*tokenizer.encode_control(pair[1]), *tokenizer.encode(answer)] if closed else ()
    return RenderedPrompt([*prompt.token_ids, *begun], [*prompt.opening, *begun])


def template_arguments(route: Route, mode: Wish, policy: Policy) -> dict[str, Any]:
    """What the template is told of the effort and the budget, in its own words; nothing where nobody named one."""
    family, budget = route.family, policy.budget
    if mode == "no_think" or (policy.effort is None and policy.requested in (None, UNLIMITED)):
        return {}
    arguments: dict[str, Any] = {}
    if family.budget_argument is not None and budget:
        arguments[family.budget_argument.argument] = family.budget_argument.fitting(budget)
    if family.efforts:
        effort = policy.effort or _effort_of(route, budget or 0)
        arguments[family.efforts["argument"]] = effort_word(family.efforts, effort, EFFORTS)
    return arguments


def _effort_of(route: Route, budget: int) -> str:
    """The largest effort of the route that a budget pays for, or the smallest of all."""
    efforts = route.defaults.budgets.efforts
    paid = [effort for effort, tokens in efforts.items() if 0 < tokens <= budget]
    return max(paid, key=efforts.__getitem__, default=min(efforts, key=efforts.__getitem__))


async def prompt_tokens(route: Route, request: Conversation, policy: Policy) -> int:
    """How many tokens the prompt of such a request has; where the mode is still to be chosen, without its prefix."""
    return len((await prompt_of(route, request, policy.mode, policy)).token_ids)
