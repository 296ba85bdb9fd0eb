"""Reasoning formats: one table from a family's name to what is known of it, and the machine that reads replies by it.

`FAMILIES` holds the built-in ones, in the order in which a model's own template is tried against them. A new one is a
table in `families.toml`, or `[families.NAME]` in the configuration.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from models.formats.reasoning import ReasoningFormat, read_formats

FAMILIES: Mapping[str, ReasoningFormat] = MappingProxyType(
    read_formats(tomllib.loads(Path(__file__).with_name("families.toml").read_text(encoding="utf-8")))
)
