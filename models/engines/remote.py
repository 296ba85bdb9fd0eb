"""A model behind a vLLM server elsewhere: token ids over HTTP.

It speaks `/v1/completions` with the prompt as ids and `return_token_ids`. vLLM's `/inference/v1/generate` is made for
token ids and would spare the server its own detokenisation, but it is off unless the server was started with
`--enable-scale-out`, and its stream does not say which stop id ended a reply. Text is ours, as with every engine: stop
strings are matched here, and a match closes the connection, upon which vLLM aborts the request.

The server reports cached prompt tokens too late for the first delta, so `cached_tokens` stays 0.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Self

import httpx
import orjson

from models.engines.base import (
    Delta,
    EngineBusy,
    EngineDead,
    EngineError,
    ImageProcessor,
    InvalidRequest,
    PositionLogprobs,
    Prompt,
    Sampling,
    admit,
)
from models.text.detokenizer import ReplyText
from models.text.tokenizer import HubTokenizer

PASSED = (  # fields that the server knows by our names
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "logprobs",
)
BUSY = (429, 503)
TOKEN_PREFIX = "token_id:"  # how the server spells tokens by id


class RemoteEngine:
    """One model, or one LoRA adapter on it, of a vLLM server. `connect` asks the server what it serves."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        tokenizer: HubTokenizer,
        *,
        name: str,
        served_model: str,
        context_length: int,
        adapters: Mapping[str, str],
        native_budget: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.adapters = frozenset(adapters)
        self.native_budget = native_budget
        self.process_images: ImageProcessor | None = None  # its API takes token ids only
        self._client = client
        self._served_model = served_model
        self._served_adapters = dict(adapters)
        self._running = 0

    @classmethod
    async def connect(
        cls,
        url: str,
        tokenizer: HubTokenizer,
        *,
        name: str,
        served_model: str | None = None,
        adapters: Mapping[str, str] | None = None,
        api_key: str | None = None,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
    ) -> Self:
        """`url` is the server's root, without `/v1`. `served_model` is the model's name there (by default its first),
        `adapters` the served names of LoRA adapters by ours. Timeouts are seconds; `timeout` is the longest silence.

        Raises `EngineDead` if the server cannot be reached and `ValueError` if it is no vLLM server, serves no such
        model, or gives no token ids.
        """
        client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout, connect=connect_timeout, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        try:
            served = await _served(client, name)
            served_model = served_model or next(iter(served))
            if served_model not in served:
                raise ValueError(f"{url} serves {', '.join(served)}, not {served_model}")
            await _require_token_ids(client, name, served_model)
        except BaseException:
            await client.aclose()
            raise
        return cls(
            client,
            tokenizer,
            name=name,
            served_model=served_model,
            context_length=served[served_model],
            adapters=adapters or {},
        )

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        most = admit(self, prompt, sampling)
        text = ReplyText(self.tokenizer.backend, prompt.token_ids, sampling)
        body = self._body(prompt, sampling, most)
        self._running += 1
        try:
            with _translating_errors(self.name):
                async with aclosing(self._choices(body)) as choices:
                    async for choice in choices:
                        delta = self._delta(choice, text, sampling)
                        yield delta
                        if delta.finish is not None:
                            return
                raise EngineError(f"engine {self.name} ended a stream without a finish reason")
        finally:
            self._running -= 1

    def running(self) -> int:
        return self._running

    async def verify(self) -> None:
        """Raises `EngineDead` where the server no longer serves the model as it did: it may have been replaced."""
        served = await _served(self._client, self.name)
        if served.get(self._served_model, 0) < self.context_length:
            raise EngineDead(f"engine {self.name}: {self._client.base_url} serves another model now")

    async def check(self) -> None:
        with _translating_errors(self.name):
            response = await self._client.get("/health")
        if response.is_error:
            raise EngineDead(f"engine {self.name} is not healthy: HTTP {response.status_code}")

    async def close(self) -> None:
        await self._client.aclose()

    async def _choices(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The choice of each event of the stream, or the only one of an answer that cannot be streamed."""
        content = orjson.dumps(body)
        headers = {"Content-Type": "application/json"}
        async with self._client.stream("POST", "/v1/completions", content=content, headers=headers) as response:
            await _raise_for_status(response, self.name)
            if not body["stream"]:
                yield orjson.loads(await response.aread())["choices"][0]
                return
            async for event in _events(response):
                if "error" in event:
                    raise _error(event["error"], int(event["error"].get("code") or 500), self.name)
                if event["choices"]:
                    yield event["choices"][0]

    def _body(self, prompt: Prompt, sampling: Sampling, most: int) -> dict[str, Any]:
        grammar = sampling.grammar
        optional: dict[str, Any] = {field: getattr(sampling, field) for field in PASSED}
        optional |= {
            "thinking_token_budget": sampling.thinking_budget,
            "stop_token_ids": list(sampling.stop_token_ids) or None,
            "logprob_token_ids": list(sampling.logprob_token_ids) or None,
            "allowed_token_ids": list(sampling.allowed_token_ids) or None,
            "bad_words": list(sampling.bad_words) or None,
            "logit_bias": {str(key): value for key, value in (sampling.logit_bias or {}).items()} or None,
            "structured_outputs": {grammar.kind: grammar.value} if grammar else None,
            "cache_salt": prompt.cache_salt,
            "priority": sampling.priority or None,
        }
        if sampling.logprob_token_ids:
            optional["logprobs"] = len(sampling.logprob_token_ids)
        return {field: value for field, value in optional.items() if value is not None} | {
            "model": self._served_adapters[prompt.adapter] if prompt.adapter else self._served_model,
            "prompt": list(prompt.token_ids),
            "max_tokens": most,  # the server's own default is 16
            "min_tokens": sampling.min_tokens,
            "ignore_eos": sampling.ignore_eos,
            "stream": not sampling.at_once,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "skip_special_tokens": False,
        }

    def _delta(self, choice: Mapping[str, Any], text: ReplyText, sampling: Sampling) -> Delta:
        reason = choice.get("finish_reason")
        if reason not in (None, "stop", "length"):
            raise EngineError(f"engine {self.name} ended a request with {reason!r}")
        logprobs = _positions(choice["logprobs"], sampling) if choice.get("logprobs") else None
        stop = choice.get("stop_reason")
        return text.delta(choice["token_ids"], logprobs, reason, stop if stop in sampling.stop_token_ids else None)


async def _served(client: httpx.AsyncClient, name: str) -> dict[str, int]:
    """The context lengths of the models that a vLLM server names. Raises `ValueError` for a server that is none."""
    with _translating_errors(name):
        response = await client.get("/v1/models")
        if response.status_code in (401, 403):
            await _raise_for_status(response, name)
    try:
        return {model["id"]: int(model["max_model_len"]) for model in response.raise_for_status().json()["data"]}
    except (httpx.HTTPStatusError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{client.base_url} is no vLLM server: /v1/models names no max_model_len") from error


async def _require_token_ids(client: httpx.AsyncClient, name: str, served_model: str) -> None:
    """Asks for one token. Raises `ValueError` where the server does not say its id."""
    body = {"model": served_model, "prompt": [0], "max_tokens": 1, "return_token_ids": True}
    with _translating_errors(name):
        response = await client.post("/v1/completions", json=body)
        await _raise_for_status(response, name)
    try:
        choice = response.json()["choices"][0]
    except (ValueError, LookupError, TypeError):
        choice = {}
    if "token_ids" not in choice:
        raise ValueError(f"{client.base_url} gives no token ids: it does not know return_token_ids")


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each server-sent event, up to `[DONE]`."""
    rest = b""
    async for received in response.aiter_bytes():
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                yield orjson.loads(line[6:])


async def _raise_for_status(response: httpx.Response, name: str) -> None:
    if not response.is_error:
        return
    content = await response.aread()
    try:
        error = orjson.loads(content).get("error")
    except orjson.JSONDecodeError:
        error = None
    raise _error(error or {"message": content.decode(errors="replace")[:500]}, response.status_code, name)


def _error(error: Mapping[str, Any], status: int, name: str) -> EngineError:
    message = f"engine {name}: {error.get('message')}"
    if status in (400, 422):
        return InvalidRequest(message, error.get("param") or "sampling")
    return EngineBusy(message) if status in BUSY else EngineError(f"{message} (HTTP {status})")


@contextmanager
def _translating_errors(name: str) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectError as error:
        raise EngineDead(f"engine {name} cannot be reached: {error}") from error
    except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
        raise EngineDead(f"engine {name} broke off: {type(error).__name__} {error}") from error
    except httpx.HTTPError as error:
        raise EngineError(f"engine {name}: {type(error).__name__} {error}") from error


def _positions(logprobs: Mapping[str, Any], sampling: Sampling) -> tuple[PositionLogprobs, ...]:
    rows = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    return tuple(
        PositionLogprobs.of(
            _id(token),
            {_id(token): logprob} | {_id(other): value for other, value in top.items()},
            sampling.logprobs,
            sampling.logprob_token_ids,
        )
        for token, logprob, top in rows
    )


def _id(token: str) -> int:
    return int(token.removeprefix(TOKEN_PREFIX))
