"""A long conversation is rendered and tokenised in a thread, on every API: other replies go on meanwhile."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from controllers.concurrency import LARGE

LONG, SHORT = "3*4 " * (LARGE // 4), "3*4 "
TURNS = "messages"
BODIES: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": lambda text: {TURNS: [{"role": "user", "content": text}], "max_tokens": 4},
    "/v1/responses": lambda text: {"input": text, "max_output_tokens": 16},
    "/v1/responses/input_tokens": lambda text: {"input": text},
    "/v1/messages": lambda text: {TURNS: [{"role": "user", "content": text}], "max_tokens": 4},
    "/v1/messages/count_tokens": lambda text: {TURNS: [{"role": "user", "content": [{"type": "text", "text": text}]}]},
    "/tokenize": lambda text: {TURNS: [{"role": "user", "content": text}]},
}


@pytest.mark.anyio
@pytest.mark.parametrize("path", BODIES)
async def test_only_a_long_conversation_is_read_in_a_thread(path, make_app, make_client, tokenizer, monkeypatch):
    read: list[bool] = []
    render = type(tokenizer).render

    def noting(self, *args, **kwargs):
        read.append(threading.current_thread() is threading.main_thread())
        return render(self, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "render", noting)
    app = make_app()
    read.clear()
    async with make_client(app) as client:
        for text, here in ((SHORT, True), (LONG, False)):
            await client.post(path, json={"model": "demo", **BODIES[path](text)})
            assert read and all(where is here for where in read), (path, len(text), read)
            read.clear()
