"""`POST /tokenize` and `/detokenize`, as vLLM's server has them: the tokens of a route's model.

A prompt is read as /v1/completions reads it, with the control tokens that it spells and no others; messages are read as
/v1/chat/completions reads them, with the same fields beside them.
"""

from typing import Annotated, Any

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from controllers.concurrency import off_loop
from controllers.generation.prompt import prompt_of
from server.apis.chat.schema import ChatRequest
from server.apis.shared.generation import json_response, prepare
from server.apis.shared.sampling_fields import Body, Flag, Text, TokenId
from server.assemble import runtime_of
from server.edges.endpoints import Routes, json_body
from server.edges.errors import validated

routes = Routes()
Ids = Annotated[list[Annotated[TokenId, Field(lt=2**32)]], Field(max_length=10_000_000)]


class TokenizeRequest(Body):
    """Fields of a chat request may stand in place of `prompt`."""

    model_config = ConfigDict(extra="allow")

    model: Text | None = None
    prompt: Text | None = None
    return_token_strs: Flag | None = None
    add_special_tokens: Any = None


class DetokenizeRequest(Body):
    model: Text | None = None
    tokens: Ids


@routes.post("/tokenize")
@json_body(TokenizeRequest)
async def tokenize(request: Request, body: TokenizeRequest) -> Response:
    runtime = runtime_of(request)
    route = runtime.route(body.model or next(iter(runtime.names)))
    tokenizer = route.engine.tokenizer
    text = body.prompt
    if text is not None:
        tokens = await off_loop(len(text), lambda: tokenizer.encode_control(text))
    else:
        chat = validated(ChatRequest.model_validate, {**(body.model_extra or {}), "model": route.name})
        generation = prepare(chat.generation_request(), request)
        prompt = await prompt_of(route, generation.conversation, generation.policy.mode, generation.policy)
        tokens = prompt.token_ids
    texts = [tokenizer.token_text(token) for token in tokens] if body.return_token_strs else None
    most = route.engine.context_length
    return json_response({"count": len(tokens), "max_model_len": most, "tokens": tokens, "token_strs": texts})


@routes.post("/detokenize")
@json_body(DetokenizeRequest)
async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
    runtime = runtime_of(request)
    route = runtime.route(body.model or next(iter(runtime.names)))
    return json_response({"prompt": route.engine.tokenizer.decode(body.tokens, skip_special_tokens=False)})
