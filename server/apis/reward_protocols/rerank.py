"""The rerank API of Cohere, Jina and vLLM."""

from typing import Annotated, Any

from pydantic import Field

from controllers.policy.controls import MOST_REPLIES
from server.apis.reward_protocols.base import ProtocolCall, TrainerBody, WithModel
from server.apis.rewards.encoder import usage
from server.apis.shared.sampling_fields import Count, Text


class Document(TrainerBody):
    text: Text


class Rerank(WithModel):
    """Cohere, Jina, vLLM."""

    query: Text
    documents: Annotated[list[Text | Document], Field(max_length=MOST_REPLIES)]
    top_n: Annotated[Count, Field(ge=0)] | None = None
    return_documents: bool = True


async def rerank(call: ProtocolCall, body: Rerank) -> dict[str, Any]:
    """Cohere's, Jina's and vLLM's rerank API: the documents are replies, best first."""
    replies = [document if isinstance(document, str) else document.text for document in body.documents]
    scores = await call.score_pairs([(body.query, reply) for reply in replies], [body.criterion] * len(replies))
    order = sorted(range(len(replies)), key=lambda i: (-scores[i], i))[: body.top_n or len(replies)]
    shown = [{"document": {"text": reply}} if body.return_documents else {} for reply in replies]
    results = [{"index": i, **shown[i], "relevance_score": scores[i]} for i in order]
    return {"id": "rerank", "model": call.judge.route.name, "results": results, "usage": usage(call.usage)}
