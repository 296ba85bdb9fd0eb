"""Log-probabilities of one position, in the protocol's order. Pure."""

from collections.abc import Mapping

from models.engines.base import PositionLogprobs, TokenLogprob


def position(
    sampled: int, known: Mapping[int, float], count: int | None, wanted: tuple[int, ...] = ()
) -> PositionLogprobs:
    """`known` holds natural log-probabilities by token id, the sampled token's among them. The alternatives, best
    first, are exactly the `wanted` ids, or else the best `count`."""
    alternatives = {token_id: known[token_id] for token_id in wanted} if wanted else known
    best = sorted(alternatives.items(), key=lambda item: item[1], reverse=True)[: len(wanted) or count or 0]
    top = tuple(TokenLogprob(token_id, logprob) for token_id, logprob in best)
    return PositionLogprobs(TokenLogprob(sampled, known[sampled]), top)
