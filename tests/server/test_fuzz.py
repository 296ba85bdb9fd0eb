"""No request that can be made up from the OpenAPI document is answered with a 5xx, or not at all."""

import pytest

from server.apis import openapi
from server.edges.endpoints import body_of
from tests.server.conftest import MakeApp
from tests.server.fuzz import fuzz, server


@pytest.mark.parametrize("cases", [200, pytest.param(6000, marks=pytest.mark.accept)])
def test_whatever_is_asked_is_answered(tokenizer, monkeypatch, cases):
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    with server(tokenizer) as running:
        seen = fuzz(running, cases, number=cases)
        assert running.until_idle() == 0
    for (route, status), count in sorted(seen.items()):
        print(f"{count:6d} {status} {route}")
    assert seen.total() >= 0.8 * cases
    answered = {route for (route, status) in seen if status == 200}
    assert {"POST /v1/chat/completions", "POST /v1/responses", "POST /v1/messages"} <= answered


def test_the_document_tells_every_body_that_is_parsed(make_app: MakeApp):
    app = make_app()
    document = openapi.document(app.routes, ["demo"])
    with_body = [route for route in app.routes if body_of(route.endpoint) is not None]
    assert len(with_body) > 8
    for route in with_body:
        told = document["paths"][route.path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][told.rpartition("/")[2]]
        assert set(schema["properties"]) >= set(body_of(route.endpoint).model_fields) - {"schema_"}
    chat = document["components"]["schemas"]["ChatRequest"]["properties"]
    assert chat["model"]["enum"] == ["demo"]
    assert "max" in str(chat["reasoning_effort"])
