"""Decide how much and what kind of thinking a request gets. Imports models."""

from collections.abc import Mapping

from controllers import reply
from controllers.generation.route import Controller

CONTROLLERS: Mapping[str, Controller] = {"mode": reply.run, "speculative": reply.run}
"""Every controller that a route can name in its configuration. A route with a target is written by both models."""
