"""Formats that many tests need."""

from models.formats import FAMILIES

HERMES = FAMILIES["hermes"].tools
assert HERMES is not None
