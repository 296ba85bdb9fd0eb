"""slime's remote reward model."""

from typing import Any

from controllers.judging.best_of_n import conversation_text
from server.apis.reward_protocols.base import ProtocolCall, Turn, WithCriterion, criterion_in, turns
from server.apis.shared.sampling_fields import Text


class SlimeReward(WithCriterion):
    prompt: Text | list[Turn]
    response: Text
    label: Any = None


async def slime(call: ProtocolCall, body: SlimeReward) -> float:
    """slime, `--rm-url`: one sample; the answer is the number itself."""
    marks, label = call.marks, criterion_in({"label": body.label})
    prompt = marks.prompt_text(body.prompt) if isinstance(body.prompt, str) else conversation_text(turns(body.prompt))
    return await call.reward(prompt, marks.reply_text(body.response), label if label.text else body.criterion)
