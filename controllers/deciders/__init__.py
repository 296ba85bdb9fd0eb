"""Deciders: who says whether a reply thinks. `DECIDERS` is the place to add one."""

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from controllers.deciders.ask import Ask, AskConfig
from controllers.deciders.base import DeciderConfig, ModeDecider, ModeVerdict, Question
from controllers.deciders.fixed import AlwaysConfig, Fixed, NeverConfig, Random, RandomConfig
from controllers.deciders.hint import Hint, HintConfig
from controllers.deciders.own_token import OwnToken, OwnTokenConfig
from controllers.deciders.probe import Probe, ProbeConfig
from controllers.policy.controls import ChosenBy
from models.engines.base import EngineBusy, EngineError, InvalidRequest, Tokenizer

DECIDERS: Mapping[str, tuple[type[DeciderConfig], Callable[[Any, Tokenizer], ModeDecider]]] = MappingProxyType(
    {
        "model": (OwnTokenConfig, lambda config, tokenizer: OwnToken()),
        "probe": (ProbeConfig, lambda config, tokenizer: Probe()),
        "ask": (AskConfig, Ask),
        "hint": (HintConfig, lambda config, tokenizer: Hint(config)),
        "always": (AlwaysConfig, lambda config, tokenizer: Fixed("think")),
        "never": (NeverConfig, lambda config, tokenizer: Fixed("no_think")),
        "random": (RandomConfig, lambda config, tokenizer: Random(config)),
    }
)
"""Every decider by its name in the configuration: its settings, and what makes it."""


def load_decider(config: DeciderConfig, tokenizer: Tokenizer) -> ModeDecider:
    """Raises `ValueError` where the model's vocabulary does not do."""
    _, load = DECIDERS[config.decider]
    return Patient(load(config, tokenizer), config)


class Patient:
    """A decider that fails lets the reply think, and says so."""

    def __init__(self, decider: ModeDecider, config: DeciderConfig) -> None:
        self._decider = decider
        self._name: ChosenBy = config.decider  # type: ignore[assignment]
        self._patience = config.patience

    async def decide(self, question: Question) -> ModeVerdict | None:
        try:
            async with asyncio.timeout(self._patience):
                return await self._decider.decide(question)
        except TimeoutError:
            failure = "slow"
        except InvalidRequest:
            raise
        except EngineError as error:
            failure = "busy" if isinstance(error, EngineBusy) else "error"
        return ModeVerdict("think", self._name, failure=failure)


def decider_for(question: Question) -> ModeDecider:
    """The route's decider; without one, the model's first token, or its probability where there is a threshold."""
    if question.route.decider is not None:
        return question.route.decider
    return OwnToken() if question.policy.think_threshold is None else Probe()
