"""Decide how much and what kind of thinking a request gets. Imports models."""

from collections.abc import Mapping

from controllers.generation import driver
from controllers.route import Controller
from controllers.speculative import controller as speculative

CONTROLLERS: Mapping[str, Controller] = {"mode": driver.run, "speculative": speculative.run}
"""Every controller that a route can name in its configuration."""
