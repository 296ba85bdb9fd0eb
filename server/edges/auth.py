"""API keys: who may call. The server keeps SHA-256 hashes; a key itself is shown once, when it is made.

A key is 256 random bits, so a plain hash cannot be searched and no slow one is needed.
"""

import base64
import hmac
import logging
import secrets
from collections.abc import Mapping, Set
from functools import partial
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.config.load import ConfigError
from server.edges.errors import ApiError

log = logging.getLogger(__name__)

ENVIRONMENT = "REASOND_API_KEYS"
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/version"})
HEADERS = ("x-api-key", "api-key")


def new_key() -> str:
    return "rsk-" + secrets.token_urlsafe(32)


def digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


def key_line(key: str, name: str) -> str:
    """The line that stands for `key` in the keys file."""
    return f"sha256:{digest(key).hex()} {name}"


def parse_keys(text: str) -> dict[bytes, str]:
    """Keys file to names by digest: `sha256:<hex> <name>` a line, `#` for comments. Raises `ConfigError`."""
    keys: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not (line := line.partition("#")[0].strip()):
            continue
        scheme, _, rest = line.partition(":")
        hexadecimal, _, name = rest.partition(" ")
        try:
            hashed = bytes.fromhex(hexadecimal)
        except ValueError:
            hashed = b""
        if scheme != "sha256" or len(hashed) != 32 or not name.strip():
            raise ConfigError(f"server.keys_file: line {number}: expected 'sha256:<64 hex digits> <name>'")
        keys[hashed] = name.strip()
    return keys


def load_keys(keys_file: str, environment: Mapping[str, str]) -> dict[bytes, str]:
    """Every key that may call, by digest. Empty: the server is open to all."""
    keys = parse_keys(Path(keys_file).read_text(encoding="utf-8")) if keys_file else {}
    plain = (key.strip() for key in environment.get(ENVIRONMENT, "").split(","))
    for number, key in enumerate(filter(None, plain), 1):
        keys[digest(key)] = f"environment-{number}"
    return keys


class Keys:
    """Every key that may call, by digest, as the keys file and the environment had it when they were last read."""

    def __init__(self, keys_file: str, environment: Mapping[str, str]) -> None:
        self._source = partial(load_keys, keys_file, environment)
        self.names = self._source()

    def reload(self) -> None:
        """Reads them again. Where they cannot be read, or there is none any more, those of before stay."""
        try:
            names = self._source()
        except (ConfigError, OSError) as error:
            log.error("the keys stay as they were: %s", error)
            return
        if not names:
            log.error("the keys stay as they were: there is none left")
            return
        log.info("%d keys may call", len(names))
        self.names = names


def presented(headers: Headers) -> list[str]:
    """The keys that a request carries, wherever its client puts them."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    candidates = [token.strip()] if scheme.lower() == "bearer" else []
    if scheme.lower() == "basic":
        candidates += _of_basic(token)
    candidates += [headers.get(name, "") for name in HEADERS]
    return [candidate for candidate in candidates if candidate]


def _of_basic(token: str) -> list[str]:
    """Name and password of a URL such as `http://key:rsk-…@host/`: all that clients without a header setting can send.
    Either may be the key.
    """
    try:
        plain = base64.b64decode(token.strip(), validate=True).decode()
    except ValueError:
        return []
    name, _, password = plain.partition(":")
    return [password, name]


def owner(keys: Mapping[bytes, str], candidates: list[str]) -> str | None:
    """The name of the key that was presented. Compares with every hash, in constant time."""
    found: str | None = None
    for candidate in candidates:
        hashed = digest(candidate)
        for known, name in keys.items():
            if hmac.compare_digest(hashed, known):
                found = name
    return found


class Authentication:
    """Plain ASGI, installed only where keys are configured. Guards every path that is not in `open_paths`."""

    def __init__(self, app: ASGIApp, keys: Keys, open_paths: Set[str]) -> None:
        self.app = app
        self.keys = keys
        self.open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in self.open_paths:
            return await self.app(scope, receive, send)
        name = owner(self.keys.names, presented(Headers(scope=scope)))
        if name is None:
            return await _refusal().response()(scope, receive, send)
        scope.setdefault("state", {})["key_name"] = name
        return await self.app(scope, receive, send)


def _refusal() -> ApiError:
    return ApiError(
        401,
        "a valid API key is needed: send it as 'Authorization: Bearer <key>' or 'x-api-key: <key>'",
        type="authentication_error",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )
