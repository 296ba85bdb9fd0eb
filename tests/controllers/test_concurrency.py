"""Work that would hold up the loop is done beside it."""

import asyncio
import threading

import pytest

from controllers.concurrency import LARGE, off_loop
from models.text.tokenizer import LONG_TEXT, HubTokenizer
from tests.wire.served import ROOT


@pytest.mark.parametrize("size,beside", [(0, False), (LARGE, False), (LARGE + 1, True)])
def test_only_large_work_is_done_in_another_thread(size, beside):
    worker = asyncio.run(off_loop(size, threading.get_ident))
    assert (worker != threading.get_ident()) == beside


def test_a_long_text_is_tokenised_while_the_loop_goes_on():
    tokenizer = HubTokenizer(ROOT / "demo/tokenizer")
    text = "what is 2 + 2? " * 20_000

    async def ticks() -> tuple[int, list[int]]:
        encoding = asyncio.ensure_future(off_loop(len(text), lambda: tokenizer.encode(text)))
        count = 0
        while not encoding.done():
            await asyncio.sleep(0.001)
            count += 1
        return count, encoding.result()

    count, token_ids = asyncio.run(ticks())
    assert count > 10  # 1 or 2 where the tokenizer holds the interpreter's lock
    assert tokenizer.decode(token_ids) == text


@pytest.mark.parametrize("length", [LONG_TEXT, LONG_TEXT + 1])
def test_a_text_has_the_same_tokens_however_long_it_is(length):
    tokenizer = HubTokenizer(ROOT / "demo/tokenizer")
    text = ("<think>2+2 is\n\n" * length)[:length]
    assert tokenizer.encode_control(text) == tokenizer.backend.encode(text, add_special_tokens=False).ids
