"""Values of arguments that are no JSON as they are written."""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

GEMMA_TOKEN = re.compile(r"\s*([{}\[\]:,]|[^{}\[\]:,\s][^{}\[\]:,]*)")


def string_typed(schema: Any) -> bool:
    """Whether a JSON schema lets nothing but strings through."""
    if not isinstance(schema, Mapping):
        return False
    kinds = schema.get("type")
    if kinds is None and isinstance(values := schema.get("enum"), list):
        return bool(values) and all(isinstance(value, str) for value in values)
    return kinds == "string" or kinds == ["string"]


def json_text(text: str) -> str:
    """The JSON of a value that is written without quotes: itself where it is JSON, else a string."""
    text = text.strip() if not text.isspace() else text
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return _literal(text) or json.dumps(text, ensure_ascii=False)
    return text


def _literal(text: str) -> str | None:
    """The JSON of a Python value that is no string, as some templates write them; None where it is none."""
    try:
        value = ast.literal_eval(text)
        return None if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def from_python(text: str) -> str | None:
    """Keyword arguments of a Python call as a JSON object; None where they are none."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            return None
        values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        return json.dumps(values, ensure_ascii=False, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def from_gemma(text: str, quote: str) -> str | None:
    """Gemma's `key:<|"|>text<|"|>,key:5` as a JSON object; None where it is none. `quote` stands around strings."""
    parts = text.split(quote)
    if len(parts) % 2 == 0:
        return None
    spelled: list[str] = []
    for at, part in enumerate(parts):
        if at % 2:
            spelled.append(json.dumps(part, ensure_ascii=False))
            continue
        tokens = [token.strip() for token in GEMMA_TOKEN.findall(part)]
        for index, token in enumerate(tokens):
            bare = token not in "{}[]:," and token not in ("true", "false", "null")
            is_key = bare and index + 1 < len(tokens) and tokens[index + 1] == ":"
            spelled.append(json.dumps(token) if is_key else token)
    written = "{" + "".join(spelled) + "}"
    try:
        return written if isinstance(orjson.loads(written), dict) else None
    except orjson.JSONDecodeError:
        return None


def elements_text(text: str, head: str, end: str) -> str | None:
    """The JSON of a value that is written as elements, each between a `head` and an `end` that name its key; a list's
    are all called item. None where it is not."""
    element = re.compile(rf"\s*{_named(head, '(?P<key>[^<>]+)')}(?P<value>.*?){_named(end, '(?P=key)')}\s*", re.DOTALL)
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = element.match(text, at)
        if match is None:
            return None
        value = match["value"]
        found.append((match["key"], elements_text(value, head, end) or json_text(value)))
        at = match.end()
    if not found:
        return None
    if all(key == "item" for key, _ in found):
        return f"[{', '.join(value for _, value in found)}]"
    return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {value}" for key, value in found) + "}"


def _named(tag: str, key: str) -> str:
    return key.join(map(re.escape, tag.split("$key")))
