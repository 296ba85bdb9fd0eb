"""Who comes to the wrong door is told the right one, and who asks about the server is answered in his own words."""

import pytest

from server import __version__
from tests.server.conftest import ENGINE_AND_ROUTE

NO_PAGE = "[server]\npage = false\n"
HI = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "method,path,meant,base",
    [
        ("POST", "/chat/completions", "/v1/chat/completions", "ends in /v1"),
        ("POST", "/responses", "/v1/responses", "ends in /v1"),
        ("GET", "/models", "/v1/models", "ends in /v1"),
        ("GET", "/models/demo", "/v1/models/demo", "ends in /v1"),
        ("POST", "/v1/v1/messages", "/v1/messages", "has no /v1"),
        ("POST", "/v1/v1/messages/count_tokens", "/v1/messages/count_tokens", "has no /v1"),
        ("POST", "/v1/v1/chat/completions", "/v1/chat/completions", "has no /v1"),
        ("POST", "/v1/embeddings", "/openapi.json", "has all paths"),
        ("GET", "/api/tags", "/openapi.json", "has all paths"),
        ("GET", "/v1", "/openapi.json", "has all paths"),
        ("GET", "/v1/page/chat.html", "/openapi.json", "has all paths"),
    ],
)
async def test_a_path_that_is_not_there_names_the_one_that_was_meant(make_client, method, path, meant, base):
    async with make_client() as client:
        answer = await client.request(method, path, json=HI if method == "POST" else None)
        right = await client.request(method, meant, json=HI if method == "POST" else None)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "not_found")
    assert path in error["message"]
    assert meant in error["message"]
    assert base in error["message"]
    assert right.status_code in (200, 400, 405)  # it is there


@pytest.mark.anyio
@pytest.mark.parametrize("extra", ["", NO_PAGE])
@pytest.mark.parametrize("keys", ["", "k"])
async def test_a_program_at_the_root_is_told_what_runs_here(make_client, extra, keys):
    async with make_client(extra=extra, keys=keys) as client:
        answer = await client.get("/", headers={"x-api-key": "k"})
        head = await client.head("/", headers={"x-api-key": "k"})
    told = answer.json()
    assert (told["server"], told["version"]) == ("reasond", __version__)
    assert told["clients"]["openai"]["base_url"] == "http://reasond/v1"
    assert told["clients"]["anthropic"]["base_url"] == "http://reasond"
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(answer.content)))
    async with make_client(extra=extra, keys=keys) as client:
        for path in told["paths"].values():
            assert (await client.get(path, headers={"x-api-key": "k"})).status_code == 200


@pytest.mark.anyio
async def test_the_root_tells_strangers_nothing_of_the_configuration(make_client):
    async with make_client(keys="k") as client:
        assert "demo" not in (await client.get("/")).text


@pytest.mark.anyio
async def test_the_head_of_the_metrics_is_answered(make_client):
    async with make_client() as client:
        assert (await client.head("/metrics")).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{"anthropic-version": "2023-06-01"}, {"x-api-key": "k"}])
async def test_anthropics_clients_get_a_list_of_models_that_they_read(make_client, headers):
    async with make_client() as client:
        listed = (await client.get("/v1/models", headers=headers)).json()
        one = (await client.get("/v1/models/demo", headers=headers)).json()
        lost = (await client.get("/v1/models/none", headers=headers)).json()
        openai = (await client.get("/v1/models", headers={**headers, "authorization": "Bearer k"})).json()
    (card,) = listed["data"]
    assert card == one
    assert (card["type"], card["id"], card["display_name"]) == ("model", "demo", "demo")
    assert card["created_at"].endswith("Z")
    assert card["reasond"]["modes"]
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, "demo", "demo")
    assert lost["error"]["type"] == "not_found_error"
    assert ("object" in openai) == ("anthropic-version" not in headers)


@pytest.mark.anyio
async def test_tokens_of_texts_and_conversations_are_told_as_vllm_tells_them(make_client, tokenizer):
    async with make_client(extra="", routes=ENGINE_AND_ROUTE) as client:
        text = (await client.post("/tokenize", json={"prompt": "2+2<think>", "return_token_strs": True})).json()
        back = (await client.post("/detokenize", json={"model": "demo", "tokens": text["tokens"]})).json()
        chat = (await client.post("/tokenize", json={**HI, "reasond": {"mode": "think"}})).json()
        reply = (await client.post("/v1/chat/completions", json={**HI, "reasond": {"mode": "think"}})).json()
    assert text["tokens"] == tokenizer.encode_control("2+2<think>")
    assert (text["count"], text["max_model_len"]) == (len(text["tokens"]), 512)
    assert "".join(text["token_strs"]) == back["prompt"] == "2+2<think>"
    assert chat["count"] == reply["usage"]["prompt_tokens"]
    assert chat["token_strs"] is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path,body,status,param",
    [
        ("/tokenize", {"model": "none", "prompt": "hi"}, 404, "model"),
        ("/tokenize", {"model": "demo"}, 400, "messages"),
        ("/tokenize", {**HI, "temprature": 1}, 400, "temprature"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": [2**40]}, 400, "tokens.0"),
    ],
)
async def test_what_cannot_be_tokenised_is_refused_by_its_field(make_client, path, body, status, param):
    async with make_client() as client:
        answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
