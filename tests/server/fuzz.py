"""Every route of the server's own OpenAPI document, with requests made up from it: well-formed ones and broken ones."""

import random
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies
from schemathesis import APIOperation, Case, GenerationMode

from models.engines.scripted import babble
from models.text.tokenizer import HubTokenizer
from tests.wire.served import Served, served

SETTINGS = """
[server]
port = 0
stored_responses = 50

[engines.demo]
kind = "scripted"
model = "demo/tokenizer"

[routes.demo]
engine = "demo"
family = "lhrm"
judged_by = "judge"

[routes.budgeter]
engine = "demo"
family = "selfbudgeter"
budgets = { reserve = 5, cap = 60 }

[routes.plain]
engine = "demo"
family = "plain"

[routes.judge]
engine = "demo"
family = "lhrm"
controller = "judge"
judge = { family = "rrm", votes = 1 }
"""
HANG_SECONDS = 30
NO_VERDICT = b'"code":"no_verdict"'  # what trainers are told when a judge babbles, so that they ask again
TOKENS = 40
ONE_ITEM = {"query": "2+2?", "replies": ["4", "5"]}  # where the reward routes would else have nothing to do


@contextmanager
def server(tokenizer: HubTokenizer) -> Iterator[Served]:
    """A server whose model babbles: any token, tags included."""
    with served(tokenizer, babble(TOKENS, range(tokenizer.vocab_size)), SETTINGS) as running:
        yield running


def fuzz(running: Served, cases: int, number: int) -> Counter[tuple[str, int]]:
    """About `cases` requests over all routes, those with a body the more. Returns the answers by route and status.

    Raises `AssertionError` for a 5xx, and the client's timeout for an answer that does not come.
    """
    document = requests.get(f"{running.url}/openapi.json", timeout=HANG_SECONDS).json()
    operations = [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]
    weights = [8 if operation.body else 1 for operation in operations]
    seen: Counter[tuple[str, int]] = Counter()
    with requests.Session() as session:
        for operation, weight in zip(operations, weights, strict=True):
            examples = max(1, round(cases * weight / sum(weights) / 2))
            asking = Asking(running.url, session, required(document, operation), seen)
            asking.ask(operation, GenerationMode.POSITIVE, examples, number)
            if operation.body:
                asking.ask(operation, GenerationMode.NEGATIVE, examples, number)
    return seen


def required(document: dict[str, Any], operation: APIOperation) -> set[str]:
    """The fields that an operation's body must have."""
    told = document["paths"][operation.path][operation.method].get("requestBody")
    if told is None:
        return set()
    name = told["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    return set(document["components"]["schemas"][name].get("required", ()))


@dataclass(frozen=True, slots=True)
class Asking:
    """One operation, asked many times."""

    url: str
    session: requests.Session
    required: set[str]
    seen: Counter[tuple[str, int]]

    def ask(self, operation: APIOperation, mode: GenerationMode, examples: int, number: int) -> None:
        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), rng=strategies.randoms(use_true_random=False))
        def one(case: Case, rng: random.Random) -> None:
            if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
                case.body = self.thinned(case.body, rng)
                if operation.path.startswith("/v1/rewards") and "items" not in case.body:
                    case.body = ONE_ITEM | case.body
            answer = case.call(base_url=self.url, session=self.session, timeout=HANG_SECONDS)
            self.seen[f"{operation.method.upper()} {operation.path}", answer.status_code] += 1
            said = (case.as_curl_command(), answer.status_code, answer.content[:500])
            assert answer.status_code < 500 or (answer.status_code == 503 and NO_VERDICT in answer.content), said

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the fuzzer's own
            one()

    def thinned(self, body: dict[str, Any], rng: random.Random) -> dict[str, Any]:
        """A body with few of its optional fields: of many at once, some two contradict each other."""
        optional = sorted(body.keys() - self.required)
        kept = self.required | set(rng.sample(optional, min(len(optional), rng.randrange(6))))
        return {name: value for name, value in body.items() if name in kept}
