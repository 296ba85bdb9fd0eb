"""One request with a budget as each of the three APIs writes it, and what came back in one form."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from tests.server.budget_load import Said, ask

Api = Literal["chat", "responses", "messages"]
PATHS: dict[Api, str] = {"responses": "/v1/responses", "messages": "/v1/messages"}
DEFAULT_LIMIT = 400  # `max_tokens` is not optional in Anthropic's API


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """`expected` is the budget that the control stands for, None where none was asked for."""

    api: Api
    model: str
    question: str
    control: dict[str, Any]
    expected: int | None
    limit: int | None
    stream: bool
    seed: int

    @property
    def body(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": self.question}]
        shared = {"model": self.model, "seed": self.seed, **self.control}
        if self.api == "chat":
            limit = {} if self.limit is None else {"max_tokens": self.limit}
            streamed = {"stream": True, "stream_options": {"include_usage": True}} if self.stream else {}
            return {**shared, "messages": messages, "return_token_ids": True, **limit, **streamed}
        shared["stream"] = self.stream
        if self.api == "messages":
            return {**shared, "messages": messages, "max_tokens": self.limit or DEFAULT_LIMIT}
        limit = {} if self.limit is None else {"max_output_tokens": self.limit}
        return {**shared, "input": self.question, "store": False, **limit}


@dataclass(frozen=True, slots=True)
class Told:
    """What came back. `said` has the token ids, which only the chat API gives."""

    answer: str
    completion_tokens: int
    reasoning_tokens: int
    record: dict[str, Any]
    said: Said | None = None


async def told(client: httpx.AsyncClient, asked: BudgetRequest) -> Told:
    if asked.api == "chat":
        said = await ask(client, asked.body)
        reasoning = said.usage["completion_tokens_details"]["reasoning_tokens"]
        return Told(said.answer, said.usage["completion_tokens"], reasoning, said.record, said)
    answer = await client.post(PATHS[asked.api], json=asked.body)
    assert answer.status_code == 200, (asked, answer.text)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    if asked.api == "responses":
        return of_response(events[-1]["response"] if asked.stream else answer.json(), events)
    return of_message(answer.json()) if not asked.stream else of_message_events(events)


def of_response(body: dict[str, Any], events: list[dict[str, Any]]) -> Told:
    parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    answer = "".join(part["text"] for part in parts)
    if events:
        assert answer == "".join(one["delta"] for one in events if one["type"] == "response.output_text.delta")
    usage = body["usage"]
    reasoning = usage["output_tokens_details"]["reasoning_tokens"]
    return Told(answer, usage["output_tokens"], reasoning, body["reasond"])


def of_message(body: dict[str, Any]) -> Told:
    answer = "".join(block["text"] for block in body["content"] if block["type"] == "text")
    usage = body["usage"]
    return Told(answer, usage["output_tokens"], usage["output_tokens_details"]["thinking_tokens"], body["reasond"])


def of_message_events(events: list[dict[str, Any]]) -> Told:
    (end,) = (event for event in events if event["type"] == "message_delta")
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    text = [{"type": "text", "text": delta["text"]} for delta in deltas if delta["type"] == "text_delta"]
    return of_message({"content": text, "usage": end["usage"], "reasond": end["reasond"]})
