"""Deciders: who says whether a reply thinks. `DECIDERS` is the place to add one."""

from collections.abc import Mapping
from types import MappingProxyType

from controllers.deciders.base import ModeDecider
from controllers.deciders.model import OwnToken
from controllers.deciders.probe import Probe
from controllers.policy.fold import Policy

DECIDERS: Mapping[str, ModeDecider] = MappingProxyType({"model": OwnToken(), "probe": Probe()})
"""Every decider by its name in the configuration."""


def decider_for(policy: Policy) -> ModeDecider:
    """The decider of a reply whose mode is `auto`."""
    return DECIDERS["model" if policy.think_threshold is None else "probe"]
