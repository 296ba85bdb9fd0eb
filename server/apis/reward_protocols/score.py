"""vLLM's score API."""

from typing import Any, Self

from pydantic import model_validator

from server.apis.reward_protocols.base import ProtocolCall, Texts, WithModel
from server.apis.shared.sampling_fields import Text


class Score(WithModel):
    """vLLM: one query to several documents, or as many queries as documents. `text_1` and `text_2` are older names."""

    queries: Text | Texts | None = None
    documents: Text | Texts | None = None
    text_1: Text | Texts | None = None
    text_2: Text | Texts | None = None

    @model_validator(mode="after")
    def _paired(self) -> Self:
        for new, old in (("queries", "text_1"), ("documents", "text_2")):
            if (getattr(self, new) is None) == (getattr(self, old) is None):
                raise ValueError(f"{new}: needed, once")
        queries, documents = len(_texts(self.queries, self.text_1)), len(_texts(self.documents, self.text_2))
        if queries not in (1, documents):
            raise ValueError(f"queries: {queries} for {documents} documents; give one, or as many as documents")
        return self

    @property
    def pairs(self) -> list[tuple[str, str]]:
        queries, documents = _texts(self.queries, self.text_1), _texts(self.documents, self.text_2)
        return list(zip(queries * len(documents) if len(queries) == 1 else queries, documents, strict=True))


def _texts(new: str | list[str] | None, old: str | list[str] | None) -> list[str]:
    texts = old if new is None else new
    return [texts] if isinstance(texts, str) else list(texts or ())


async def vllm_score(call: ProtocolCall, body: Score) -> dict[str, Any]:
    """vLLM's score API: the documents to one query are judged against each other."""
    scores = await call.score_pairs(body.pairs, [body.criterion] * len(body.pairs))
    data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(scores)]
    return call.listed("score", data)
