"""Run in an environment that has Cohere's client and nothing of ours: reranks at argv[1] with the key in argv[2]."""

import json
import sys

import cohere

URL, KEY = sys.argv[1:]
ASKED = {"model": "judge", "query": "Which number is larger?", "documents": ["3", "8", "5"]}


def order(answer):
    return [(result.index, result.relevance_score) for result in answer.results]


def status(client, **changes):
    try:
        client.rerank(**ASKED | changes)
    except cohere.core.ApiError as error:
        return error.status_code
    return None


v2 = cohere.ClientV2(api_key=KEY, base_url=URL)
print(
    json.dumps(
        {
            "v2": order(v2.rerank(**ASKED)),
            "v2 best": order(v2.rerank(**ASKED, top_n=1)),
            "v1": order(cohere.Client(api_key=KEY, base_url=URL).rerank(**ASKED)),
            "wrong key": status(cohere.ClientV2(api_key="rsk-other", base_url=URL)),
            "one document": status(v2, documents=["3"]),
        }
    )
)
