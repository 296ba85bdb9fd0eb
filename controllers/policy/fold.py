"""What the client asked for, under whichever name, folded into one policy.

Many fields say the same thing; `CONTROLS` lists them all, and `docs/controls.md` publishes the table. Precedence is
request over key over route, under the caps of both. Two fields of one request that disagree are refused with both
names; a field that the route cannot honour is refused, never ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from controllers.policy.controls import CONTROLS, EFFORTS, UNLIMITED, ChosenBy, ParsedControl, PolicyError, Wish
from controllers.policy.exits import MarginConfig, TrialConfig
from controllers.policy.load import Deadline, LoadConfig
from controllers.policy.loop import LoopConfig
from controllers.policy.speculation import SpeculativeConfig, TakeoverLimits
from models.formats.reasoning import ReasoningFormat

TOLERANCE = 32
RESERVE, RESERVED_SHARE = 256, 8
"""Tokens that are kept for an answer where a route does not say otherwise, at most one in so many of the context."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How much thinking one request gets: the one form in which controllers read it.

    `budget` is the number of tokens that the family's scope may have, caps included (None: no limit), `requested` what
    the client asked for (-1: no limit) in field `asked_in`, `cap` what nobody may exceed. `prefill` is what is written
    into the model's own budget field: a budget that somebody named, within the caps (None: the model fills it).
    `reserve` is the number of tokens that are kept for the answer, no more than `reserve_share` of the reply's.
    `tolerance` is how many tokens before its limit thinking may end at a line end (None: hard cuts only), and the
    client itself `insists` on that where a request that cannot have it is to be refused, not cut hard. `hold_declared`
    holds a model to the budget that it gives itself. `lengths` are those of the target's takeovers (None: the route's
    own); without `target` the small model is alone.
    `early_exit` is the client's word on the route's (None: none).
    `effort` is the client's word for it, for templates that know efforts themselves. By its `deadline` the answer is to
    begin. `key` are the limits under which the request was folded, for another route that it makes work.
    """

    mode: Wish
    chosen_by: ChosenBy
    think_threshold: float | None = None
    show_reasoning: bool = True
    best_of: int = 1
    budget: int | None = None
    requested: int | None = None
    asked_in: str = ""
    cap: int | None = None
    prefill: int | None = None
    effort: str | None = field(default=None, repr=False)
    reserve: int = 0
    reserve_share: float = 1.0
    tolerance: int | None = TOLERANCE
    insists: bool = False
    hold_declared: bool = False
    lengths: TakeoverLimits | None = None
    target: bool = True
    early_exit: bool | None = None
    deadline: Deadline | None = None
    key: "KeyLimits | None" = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """A route's budgets: the default for requests that name none, the cap that none exceeds, the tokens of each effort,
    the answer's reserve, and how thinking is cut. The reserve takes no more than `reserve_share` of a reply."""

    default: int | None = None
    cap: int | None = None
    reserve: int = 0
    reserve_share: float = 1.0
    efforts: Mapping[str, int] = field(default_factory=lambda: EFFORTS)
    graceful: bool = True
    tolerance: int = TOLERANCE
    hold_declared: bool = False


@dataclass(frozen=True, slots=True)
class Defaults:
    """A route's own policy, for what a request leaves open. `best_of` None: the route has no judge to rank with.
    `decider` names what decides for mode `auto`; None: the model itself."""

    mode: Wish
    think_threshold: float | None = None
    budgets: BudgetSettings = field(default_factory=BudgetSettings)
    speculation: SpeculativeConfig | None = None
    best_of: int | None = None
    loop: LoopConfig | None = None
    early_exit: MarginConfig | TrialConfig | None = None
    load: LoadConfig = field(default_factory=LoadConfig)
    decider: str | None = None


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What the API key `name` gets: a default and a deadline that go before the route's, and a cap beside the
    route's."""

    budget: int | None = None
    cap: int | None = None
    name: str = ""
    deadline: float | None = None


def default_reserve(family: ReasoningFormat, context_length: int) -> int:
    """What a route keeps for its answers by itself. A budget that counts the whole reply leaves nothing to keep."""
    return min(RESERVE, context_length // RESERVED_SHARE) if family.scope == "thinking" else 0


def cap_of(budgets: BudgetSettings, key: KeyLimits | None) -> int | None:
    """What no request of this key to this route may exceed, in tokens of its family's scope."""
    caps = (budgets.cap, key.cap if key else None)
    return min((cap for cap in caps if cap is not None), default=None)


def fold(asked: Mapping[str, Any], family: ReasoningFormat, defaults: Defaults, key: KeyLimits | None = None) -> Policy:
    """One policy from a request's control fields, over its key's limits, over the route's defaults.

    Raises `PolicyError` for fields that contradict each other and for controls that the route cannot honour.
    """
    possible = modes(family, defaults.decider)
    read = [
        item for field, read in CONTROLS.items() if asked.get(field) is not None for item in read(asked[field], field)
    ]
    said = _settled(read, possible, defaults.mode)
    budgets, key = defaults.budgets, key or KeyLimits()
    effort = next((item.effort for item in said if item.effort), None)
    said = _with_efforts(said, family, budgets)
    mode, threshold, show, best_of, graceful, early_exit, budget = (
        _agreed(said, what) for what in ("mode", "threshold", "show", "best_of", "graceful", "early_exit", "budget")
    )
    _check_budget(said, budget, mode, family)
    limits = _limits(budget, mode, key, budgets, family)
    wish, chosen_by = _mode_of(mode, limits, family, defaults.mode)
    if mode:
        _check_mode(wish, mode.field, possible)
    if threshold and wish != "auto":
        other = mode or (budget if chosen_by == "client" else None)
        says = f"{other.field} makes it" if other else "this request's mode is"
        raise PolicyError(f"{threshold.field} needs mode auto; {says} {wish}", threshold.field)
    if show and show.show is False and family.scope == "reply":
        raise _refusal(show, "thinking and answer stand together in this route's replies")
    if graceful:
        _check_cut(graceful, family, budgets)
    if best_of and defaults.best_of is None:
        raise _refusal(best_of, "this route has no judge to rank replies with")
    if early_exit and early_exit.early_exit and defaults.early_exit is None:
        raise _refusal(early_exit, "this route ends no thought that is settled")
    kind = budgets.graceful if graceful is None else graceful.graceful is True
    return Policy(
        mode=wish,
        chosen_by=chosen_by,
        think_threshold=None if wish != "auto" else threshold.threshold if threshold else defaults.think_threshold,
        show_reasoning=show is None or show.show is not False,
        best_of=(best_of and best_of.best_of) or defaults.best_of or 1,
        budget=limits.enforced if family.scope else None,
        requested=budget.budget if budget else None,
        asked_in=budget.field if budget else "",
        cap=limits.cap,
        prefill=_prefill(said, limits, family),
        effort=effort,
        reserve=budgets.reserve,
        reserve_share=budgets.reserve_share,
        tolerance=budgets.tolerance if kind else None,
        insists=graceful is not None and kind,
        hold_declared=budgets.hold_declared,
        lengths=_lengths(said, defaults.speculation),
        target=not any(item.target is False for item in said),
        early_exit=early_exit.early_exit if early_exit else None,
        deadline=_deadline(said, budget, key, defaults.load, family),
        key=key,
    )


def _settled(said: list[ParsedControl], possible: Sequence[Wish], own: Wish) -> list[ParsedControl]:
    """What was said, less what says nothing here: a mode left to a route that cannot choose one is the route's `own`,
    and an effort that yields says nothing of a mode or a budget that another field names, or that no model here has."""
    said = [replace(item, mode=None) if item.adaptive and "auto" not in possible else item for item in said]
    firm = [item for item in said if not item.yields]
    budget = next((item.budget for item in firm if item.budget is not None), None)
    mode = next((item.mode for item in firm if item.mode), None)
    if mode is None:
        adaptive = any(item.adaptive for item in firm)
        mode = "no_think" if budget == 0 or "think" not in possible else own if adaptive else None
    over = mode == "no_think" or budget is not None
    return [
        replace(item, mode=None if mode else item.mode, effort=None if over else item.effort) if item.yields else item
        for item in said
    ]


def _check_cut(asked: ParsedControl, family: ReasoningFormat, budgets: BudgetSettings) -> None:
    """Refuses a way of cutting that no reply of the route can have."""
    if family.scope is None:
        raise _refusal(asked, "this route's model does not think, so nothing is cut")
    if asked.graceful and family.scope == "reply" and not budgets.reserve:
        raise _refusal(asked, "replies of this route are cut hard, as it has no reserve")
    if not asked.graceful and family.scope == "reply" and budgets.reserve:
        raise _refusal(asked, "this route's replies keep a reserve, so they are not cut hard")


def _lengths(said: list[ParsedControl], speculation: SpeculativeConfig | None) -> TakeoverLimits | None:
    """The lengths of takeovers, as asked for and within the route's caps; None where nothing was asked."""
    without = next((item for item in said if item.target is False), None)
    for item in said:
        if speculation is None and (item.target is not None or item.length is not None):
            raise _refusal(item, "this route has no target model")
        if without and item.length is not None:
            raise _contradiction(without, item)
    asked = dict(item.length for item in said if item.length is not None)
    return speculation.lengths.within(asked, speculation.longest) if asked and speculation is not None else None


@dataclass(frozen=True, slots=True)
class _Limits:
    """The budget that counts, who named it, and what nobody may exceed."""

    named: int | None
    by: ChosenBy
    cap: int | None

    @property
    def enforced(self) -> int | None:
        named = None if self.named == UNLIMITED else self.named
        return min((limit for limit in (named, self.cap) if limit is not None), default=None)


def _limits(
    budget: ParsedControl | None,
    mode: ParsedControl | None,
    key: KeyLimits,
    budgets: BudgetSettings,
    family: ReasoningFormat,
) -> _Limits:
    """Request over key over route, and the lower of the caps. A default of 0 yields to a request that lets think."""
    if family.scope is None:  # there is nothing to limit, but a request may still say that it wants no thinking
        key, budgets = KeyLimits(), BudgetSettings()
    thinks = mode is not None and mode.mode != "no_think"
    named: tuple[tuple[int | None, ChosenBy], ...] = (
        (budget.budget if budget else None, "client"),
        (None if thinks and key.budget == 0 else key.budget, "key"),
        (None if thinks and budgets.default == 0 else budgets.default, "route"),
    )
    first, by = next((pair for pair in named if pair[0] is not None), (None, "route"))
    limits = _Limits(first, by, cap_of(budgets, key))
    if limits.enforced == 0 and family.scope == "reply":
        raise PolicyError("model: the limits of this API key are 0, and this route's replies have at least 1", "model")
    return limits


def _deadline(
    said: list[ParsedControl],
    budget: ParsedControl | None,
    key: KeyLimits,
    load: LoadConfig,
    family: ReasoningFormat,
) -> Deadline | None:
    """Request over key over route; only thinking can be held to one."""
    asked = _agreed(said, "deadline")
    if family.scope != "thinking":
        if asked:
            raise _refusal(asked, "this route's model has no thinking that could end sooner")
        return None
    named = asked.deadline if asked else key.deadline
    if named is not None:
        return Deadline(named, "deadline", load.floor)
    held = load.goal_seconds and (budget is None or load.hold_clients)
    return Deadline(load.goal_seconds, "load", load.floor) if held else None


def _prefill(said: list[ParsedControl], limits: _Limits, family: ReasoningFormat) -> int | None:
    wanted = _agreed(said, "prefill")
    if wanted and family.budget is None:
        raise _refusal(wanted, "this route's model has no budget field")
    if family.budget is None or limits.named in (None, UNLIMITED) or (wanted and not wanted.prefill):
        return None
    return limits.enforced


def _with_efforts(said: list[ParsedControl], family: ReasoningFormat, budgets: BudgetSettings) -> list[ParsedControl]:
    """What was said, with each effort as its budget: with another budget in one request it contradicts itself, unless
    the two come to the same number, or the model knows efforts itself. An effort of no tokens is no thinking."""
    if family.scope is None or (family.efforts and any(item.budget is not None for item in said)):
        return said
    return [
        _with_budget(item, budgets.efforts[item.effort]) if item.effort and not item.counted else item for item in said
    ]


def _with_budget(item: ParsedControl, tokens: int) -> ParsedControl:
    return replace(item, budget=tokens) if tokens else replace(item, budget=0, mode="no_think")


def _mode_of(
    mode: ParsedControl | None, limits: _Limits, family: ReasoningFormat, default: Wish
) -> tuple[Wish, ChosenBy]:
    """A budget of 0, whoever named it, is no thinking where the family can, and a request's budget on a route that
    answers directly by default asks it to think."""
    if mode and mode.mode == "no_think":
        return "no_think", "client"
    if limits.enforced == 0 and "no_think" in family.able:
        return "no_think", limits.by if limits.named == 0 else "cap"
    if mode and mode.mode:
        return mode.mode, "client"
    if limits.by == "client" and limits.named and limits.named > 0 and default == "no_think":
        return "think", "client"
    return default, "route"


def _check_budget(
    said: list[ParsedControl], budget: ParsedControl | None, mode: ParsedControl | None, family: ReasoningFormat
) -> None:
    """Refuses a budget that the family cannot have, and one that contradicts the mode."""
    for item in said:
        if item.scope is not None and item.scope != family.scope:
            has = f"count its {family.scope}" if family.scope else "do not exist"
            raise _refusal(item, f"budgets of this route's model {has}, not {item.scope}")
    if budget is None or budget.budget is None:
        return
    if budget.budget > 0 and family.scope is None:
        raise _refusal(budget, "this route's model does not think, so it has no budget")
    if budget.budget == 0 and family.scope == "reply":
        raise _refusal(budget, "this route's budget is for the whole reply, at least 1")
    thinks = None if mode is None else mode.mode != "no_think"
    if mode and ((budget.budget == 0 and thinks) or (budget.budget > 0 and not thinks)):
        raise _contradiction(mode, budget)


def modes(family: ReasoningFormat, decider: str | None = None) -> tuple[Wish, ...]:
    """The modes that a family can honour. `auto` needs a model that chooses, or a decider and a choice of two modes."""
    auto = family.chooses or (decider is not None and {"think", "no_think"} <= set(family.able))
    return (*family.able, *(("auto",) if auto else ()))


def _check_mode(wish: Wish, field: str, possible: Sequence[Wish]) -> None:
    if wish not in possible:
        able = ", ".join(possible)
        raise PolicyError(f"{field}: this route's model has no mode {wish}; it has: {able}", field)


def _agreed(said: list[ParsedControl], what: str) -> ParsedControl | None:
    """The first control that says `what`. Raises `PolicyError` where another says otherwise."""
    saying = [item for item in said if getattr(item, what) is not None]
    for item in saying[1:]:
        if getattr(item, what) != getattr(saying[0], what):
            raise _contradiction(saying[0], item)
    return saying[0] if saying else None


def _refusal(asked: ParsedControl, why: str) -> PolicyError:
    return PolicyError(f"{asked.field}: {why}", asked.field)


def _contradiction(first: ParsedControl, second: ParsedControl) -> PolicyError:
    return PolicyError(f"{first.field} and {second.field} contradict each other", second.field)
