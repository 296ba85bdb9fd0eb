"""What the tests of `deploy/` share with those of the server."""

from tests.server.conftest import anyio_backend, engine, make_app, make_client, tokenizer

__all__ = ["anyio_backend", "engine", "make_app", "make_client", "tokenizer"]
