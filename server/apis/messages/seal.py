"""Thinking that a client carries without reading it: sealed into the signature of its block.

The same thought under the same key has the same seal, so that prompts that hold it again hit the prefix cache.
"""

import zlib
from base64 import b64decode, b64encode
from binascii import Error
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

PURPOSE = b"reasond thinking 1"


class Seal:
    """Authenticated encryption (AES-SIV) under a key of the server: all replicas that share it read each other's."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(sha256(PURPOSE + key).digest())

    def seal(self, thought: str) -> str:
        return b64encode(self._cipher.encrypt(zlib.compress(thought.encode()), [PURPOSE])).decode()

    def unseal(self, sealed: str) -> str | None:
        """The thought; None for what was not sealed under this key."""
        try:
            return zlib.decompress(self._cipher.decrypt(b64decode(sealed, validate=True), [PURPOSE])).decode()
        except (InvalidTag, Error, ValueError):
            return None
