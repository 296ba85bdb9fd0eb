"""Long replies: the work for one is in step with its length, and what is told in between does not grow with it."""

import time
from collections.abc import Callable

import pytest
from starlette.requests import Request

from controllers.generation.events import BudgetUse, Decision, Finished, Progress
from models.formats.chunks import CallPart, Chunk
from server.apis.chat.encoder import ChatEncoder
from server.apis.chat.schema import ChatRequest
from server.apis.messages.encoder import MessageEncoder
from server.apis.messages.schema import MessagesRequest
from server.apis.messages.seal import Seal
from server.apis.responses.encoder import ResponseEncoder
from server.apis.responses.schema import ResponsesRequest
from server.apis.shared.generation import prepare
from server.apis.shared.reply import ReplyEncoder
from tests.server.conftest import MakeApp

HI = [{"role": "user", "content": "hi"}]
DECIDED = Decision("think", "client", [1, 2, 3])
PROGRESS = Progress(BudgetUse("thinking", 100, None, 100, 7), 1.0)
END = Finished("stop", None, 1, 1, 0, 0, DECIDED)
KINDS = {
    "thinking": Chunk("reasoning", "ten chars.", (1,)),
    "text": Chunk("answer", "ten chars.", (1,)),
    "call": Chunk("tool", "ten chars.", (1,), call=CallPart(0)),
}
NewEncoder = Callable[[], ReplyEncoder]


@pytest.fixture(params=["chat", "messages", "responses"])
def new_encoder(request: pytest.FixtureRequest, make_app: MakeApp) -> NewEncoder:
    scope = {"type": "http", "app": make_app(), "state": {"request_id": "r"}, "headers": []}

    def new() -> ReplyEncoder:
        if request.param == "chat":
            chat = ChatRequest(model="demo", messages=HI)
            return ChatEncoder(prepare(chat.generation_request(), Request(scope)), chat)
        if request.param == "messages":
            message = MessagesRequest(model="demo", messages=HI, max_tokens=9)
            generation = prepare(message.generation_request(), Request(scope))
            return MessageEncoder(generation, message, Seal(b"key"), "r")
        response = ResponsesRequest(model="demo", input="hi")
        asked = response.generation_request(response.items, [], Seal(b"key").unseal)
        return ResponseEncoder(prepare(asked, Request(scope)), response)

    return new


def seconds(encoder: ReplyEncoder, chunk: Chunk, count: int, *, stream: bool) -> float:
    """Processor time of a reply of so many chunks."""
    began = time.process_time()
    take = encoder.frame if stream else encoder.add
    take(0, DECIDED)
    if chunk.call is not None:
        take(0, Chunk("tool", "", (1,), call=CallPart(0, "call_1", "write")))
    for _ in range(count):
        take(0, chunk)
    take(0, END)
    if not stream:
        encoder.whole()
    return time.process_time() - began


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_of_ten_times_the_length_takes_about_ten_times_as_long(new_encoder, kind, stream):
    def measured(count: int) -> float:
        return min(seconds(new_encoder(), KINDS[kind], count, stream=stream) for _ in range(3))

    short, long = measured(5_000), measured(50_000)
    print(f"{short:.4f} s, {long:.4f} s")
    assert long < 25 * short  # where each piece is put behind a copy of all before: about 100 times


def test_progress_in_the_middle_of_a_long_reply_does_not_repeat_it(new_encoder):
    encoder = new_encoder()
    encoder.frame(0, DECIDED)
    for kind in ("thinking", "text"):
        for _ in range(1000):
            encoder.frame(0, KINDS[kind])
    frame = encoder.frame(0, PROGRESS)
    assert b'"used":7' in frame
    assert len(frame) < 2000
