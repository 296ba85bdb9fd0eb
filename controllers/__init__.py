"""Decide how much and what kind of thinking a request gets. Imports models."""

from collections.abc import Mapping

from controllers import mode, speculative
from controllers.route import Controller

CONTROLLERS: Mapping[str, Controller] = {"mode": mode.run, "speculative": speculative.run}
"""Every controller that a route can name in its configuration."""
