"""Deciders: who says whether a reply thinks. `DECIDERS` is the place to add one."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from controllers.deciders.agree import Agree, AgreeConfig
from controllers.deciders.ask import Ask, AskConfig
from controllers.deciders.base import DeciderConfig, ModeDecider, ModeVerdict, Question
from controllers.deciders.chain import Chain, ChainConfig
from controllers.deciders.classifier import ClassifierConfig, TextClassifier
from controllers.deciders.draft import DirectFirst, DraftConfig
from controllers.deciders.drift import Drift
from controllers.deciders.fixed import AlwaysConfig, Fixed, NeverConfig, Random, RandomConfig
from controllers.deciders.hint import Hint, HintConfig
from controllers.deciders.own_token import OwnToken, OwnTokenConfig
from controllers.deciders.probe import Probe, ProbeConfig
from controllers.generation.events import DeciderFailure
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
        "draft": (DraftConfig, DirectFirst),
        "agree": (AgreeConfig, lambda config, tokenizer: Agree(config)),
        "classifier": (ClassifierConfig, lambda config, tokenizer: TextClassifier(config)),
        "chain": (ChainConfig, lambda config, tokenizer: Chain(config, _links(config, tokenizer))),
    }
)
"""Every decider by its name in the configuration: its settings, and what makes it."""


def read_decider(table: Mapping[str, Any], context: Any = None) -> DeciderConfig:
    """The settings in a table of the configuration. Raises `ValueError` for a decider that there is not, and for what
    it cannot have."""
    name = str(table.get("decider"))
    if name not in DECIDERS:
        raise ValueError(f"unknown decider {name!r}; known: {', '.join(DECIDERS)}")
    if isinstance(links := table.get("links"), list):
        table = {**table, "links": [read_decider(link, context) for link in links]}
    return DECIDERS[name][0].model_validate(table, context=context)


def load_decider(config: DeciderConfig, tokenizer: Tokenizer) -> "Patient":
    """Raises `ValueError` where the model's vocabulary does not do, or the calibration is another's."""
    _, load = DECIDERS[config.decider]
    return Patient(load(config, tokenizer), config)


def _links(config: ChainConfig, tokenizer: Tokenizer) -> list["Patient"]:
    return [load_decider(link, tokenizer) for link in config.links]


class Patient:
    """A decider whose scores are taken for what its calibration says. One that fails lets the reply think, and says so.
    Every word of its counts: its patience is for silence."""

    def __init__(self, decider: ModeDecider, config: DeciderConfig) -> None:
        self.decider = decider
        self._name: ChosenBy = config.decider  # type: ignore[assignment]
        self._patience = config.patience
        self._calibration = config.calibrated()
        self._drift = Drift(self._calibration.scores) if any(self._calibration.scores) else None

    def drifts(self) -> Iterator[tuple[str, Drift]]:
        """By the decider's name, those of its links included."""
        if self._drift is not None:
            yield self._name, self._drift
        if isinstance(self.decider, Chain):
            links = (link for link in self.decider.links if isinstance(link, Patient))
            yield from (drift for link in links for drift in link.drifts())

    async def decide(self, question: Question) -> ModeVerdict | None:
        try:
            async with asyncio.timeout(self._patience) as timeout:

                def heard() -> None:
                    if not timeout.expired():
                        timeout.reschedule(asyncio.get_running_loop().time() + self._patience)
                    question.heard()

                verdict = await self.decider.decide(replace(question, heard=heard, calibration=self._calibration))
                if self._drift is not None and verdict is not None and verdict.score is not None:
                    self._drift.saw(verdict.score)
                return verdict
        except TimeoutError:
            failure: DeciderFailure = "slow"
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
