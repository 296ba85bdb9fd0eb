"""The reward protocols of trainers, each as its own client speaks it; `docs/rewards.md` has the trainers' flags.

`REWARD_PROTOCOLS` is the table: a path, the class of its bodies, and the function that judges one. A protocol is added
by a file of its own and a line here.
"""

from server.apis.reward_protocols.base import RewardProtocol, endpoint
from server.apis.reward_protocols.nemo_gym import Compare, Verify, nemo_compare, seed_session, verify
from server.apis.reward_protocols.openrlhf import GetReward, get_reward
from server.apis.reward_protocols.rerank import Rerank, rerank
from server.apis.reward_protocols.score import Score, vllm_score
from server.apis.reward_protocols.slime import SlimeReward, slime
from server.apis.reward_protocols.verl import Classify, classify
from server.edges.endpoints import Routes

REWARD_PROTOCOLS: dict[str, RewardProtocol] = {
    "/get_reward": RewardProtocol(GetReward, get_reward),
    "/reward": RewardProtocol(SlimeReward, slime),
    "/classify": RewardProtocol(Classify, classify),
    "/score": RewardProtocol(Score, vllm_score),
    "/v1/score": RewardProtocol(Score, vllm_score),
    "/rerank": RewardProtocol(Rerank, rerank),
    "/v1/rerank": RewardProtocol(Rerank, rerank),
    "/v2/rerank": RewardProtocol(Rerank, rerank),
    "/verify": RewardProtocol(Verify, verify),
    "/compare": RewardProtocol(Compare, nemo_compare),
}


def routes() -> Routes:
    routes = Routes()
    routes.post("/seed_session")(seed_session)
    for path, protocol in REWARD_PROTOCOLS.items():
        routes.post(path)(endpoint(protocol))
    return routes
