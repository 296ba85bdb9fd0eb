"""NeMo-Gym's resources server: it verifies one reply, or compares several."""

from typing import Annotated, Any

import orjson
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from controllers.judging.best_of_n import conversation_text
from controllers.judging.ranking import JudgedMatch
from controllers.judging.scoring import Criterion
from controllers.policy.controls import MOST_REPLIES
from server.apis.reward_protocols.base import (
    Content,
    ProtocolCall,
    TrainerBody,
    Turn,
    criterion_in,
    known,
    text_in,
    turns,
)
from server.apis.shared.sampling_fields import Text
from server.edges.errors import ApiError

SCALES = {0: (5.0, 1.0, 1.0), 1: (1.0, 5.0, 6.0), None: (3.0, 3.0, 3.5)}
"""A vote on NeMo-Gym's scales, by its side: both replies' scores (1 to 5), and the ranking (1 to 6)."""


class OutputItem(TrainerBody):
    type: Text = "message"
    content: Content = None


class ResponseObject(TrainerBody):
    """A reply in the form of OpenAI's Responses API: the text of its messages counts."""

    output: list[OutputItem]

    @property
    def text(self) -> str:
        return "".join(text_in(item.content) for item in self.output if item.type == "message").strip()


class CreateParams(TrainerBody):
    input: Text | list[Turn]


class Verify(TrainerBody):
    """NeMo-Gym. The answer is the same body with a reward, so all of it is kept."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    responses_create_params: CreateParams
    response: ResponseObject

    @property
    def criterion(self) -> Criterion:
        extra = self.model_extra or {}
        metadata = extra.get("verifier_metadata")
        inner = metadata if isinstance(metadata, dict) else {}
        return criterion_in(inner | {name: value for name, value in extra.items() if value is not None})


class Compare(TrainerBody):
    """NeMo-Gym's comparison of several replies to one conversation, by an extra principle if there is one."""

    conversation_history: list[Turn]
    response_objs: Annotated[list[ResponseObject], Field(max_length=MOST_REPLIES)]
    principle: Text | None = None


async def seed_session(request: Request) -> Response:
    """NeMo-Gym's agents begin every episode with this. A judge has nothing to prepare, whatever the body is."""
    return Response(b"{}", media_type="application/json")


async def verify(call: ProtocolCall, body: Verify) -> dict[str, Any]:
    """NeMo-Gym's resources server: the same body, with the reward of its one reply."""
    asked = body.responses_create_params.input
    prompt = asked if isinstance(asked, str) else conversation_text(turns(asked))
    try:
        sent = orjson.loads(call.sent)
    except orjson.JSONDecodeError as error:  # pydantic lets NaN and Infinity pass, which JSON does not have
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_value") from error
    return {**sent, "reward": await call.reward(prompt, call.marks.reply_text(body.response.text), body.criterion)}


async def nemo_compare(call: ProtocolCall, body: Compare) -> dict[str, Any]:
    """NeMo-Gym's comparison of several replies: all pairs, with one result a vote."""
    query = conversation_text(turns(body.conversation_history))
    if body.principle:
        query += f"\n\nJudge by this principle: {body.principle}"
    replies = [call.marks.reply_text(response.text) for response in body.response_objs]
    scores = await call.score(query, replies, Criterion())
    rewards = known(scores.values)
    matches = scores.ranking.matches if scores.ranking else []
    abstained = sum(vote.share is None for vote in scores.votes)
    metrics = {"comparisons": len(matches), "votes": len(scores.votes), "abstentions": abstained}
    results = [result for one in matches for result in _results(one)]
    return {"rewards": rewards, "comparison_results": results, "metrics": metrics}


def _results(one: JudgedMatch) -> list[dict[str, Any]]:
    """A vote is the end of each scale, or its middle where it is for neither side."""
    answer = []
    for i, vote in enumerate(one.verdict.votes):
        first, second, ranking = SCALES[vote.side]
        pair = {"response_i": one.match.first, "response_j": one.match.second, "judge_idx": i}
        answer.append({**pair, "score_1": first, "score_2": second, "ranking": ranking})
    return answer
