"""Keys: every registered route asks for one, except the three that say whether the server is there."""

import re
import signal
import time

import httpx
import pytest
from starlette.responses import JSONResponse

from server.config.load import ConfigError
from server.edges.auth import OPEN_PATHS, digest, key_line, load_keys, new_key, parse_keys
from server.edges.endpoints import Routes
from server.page.routes import PATHS
from tests.processes import reasond
from tests.server.conftest import ENGINE_AND_ROUTE

KEY = "rsk-one"
BEARER = {"authorization": f"Bearer {KEY}"}


def endpoints(app) -> list[tuple[str, str]]:
    """Every method and path that is registered, OpenAPI's own document included."""
    found = [(method, route.path) for route in app.routes for method in sorted(route.methods or ())]
    assert {route.path for route in app.routes} >= {"/v1/models", "/metrics"}
    return [(method, path.replace("{name:path}", "demo")) for method, path in found]


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": KEY}, {"x-api-key": ""}])
async def test_every_route_but_the_open_ones_refuses_a_caller_without_a_key(make_app, make_client, headers):
    app = make_app(keys=KEY)
    async with make_client(app) as client:
        for method, path in endpoints(app):
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code == 401) == (path not in OPEN_PATHS | PATHS), path


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [BEARER, {"authorization": f"bearer {KEY}"}, {"x-api-key": KEY}, {"api-key": KEY}])
async def test_a_key_opens_every_route_whichever_header_carries_it(make_app, make_client, headers):
    app = make_app(keys=f"other, {KEY}")
    async with make_client(app) as client:
        for method, path in endpoints(app):
            assert (await client.request(method, path, headers=headers)).status_code != 401, path


@pytest.mark.anyio
async def test_a_refusal_has_openais_shape_and_does_not_repeat_the_key(make_client):
    async with make_client(keys=KEY) as client:
        answer = await client.get("/v1/models", headers={"authorization": "Bearer not-this-one"})
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-request-id"]
    assert "not-this-one" not in answer.text


@pytest.mark.anyio
async def test_paths_that_do_not_exist_are_not_told_apart_without_a_key(make_client):
    async with make_client(keys=KEY) as client:
        for path in ("/none", "/v1/none", "/health/", "http://reasond//health", "/v1/../health/x", "/HEALTH"):
            assert (await client.get(path)).status_code == 401, path


@pytest.mark.anyio
async def test_without_keys_the_server_is_open_and_says_so(make_client, caplog):
    async with make_client() as client:
        assert (await client.get("/v1/models")).status_code == 200
    assert "no API keys" in caplog.text


@pytest.mark.anyio
async def test_the_keys_file_opens_the_server_and_the_route_knows_whose_key_it_was(make_app, make_client, tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# who may call\n{key_line(KEY, 'alice in the lab')}\n\n{key_line('rsk-two', 'bob')} # left\n")
    app = make_app(extra=f'[server]\nkeys_file = "{file}"\n')

    routes = Routes()

    @routes.get("/whose")
    async def whose(request):
        return JSONResponse(request.state.key_name)

    app.router.routes += routes
    async with make_client(app) as client:
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/whose", headers=BEARER)).json() == "alice in the lab"


def test_a_new_key_is_long_and_its_line_reads_back_as_its_hash():
    key = new_key()
    assert len(key) > 40
    assert new_key() != key
    assert parse_keys(key_line(key, "alice")) == {digest(key): "alice"}
    assert key not in key_line(key, "alice")


@pytest.mark.parametrize(
    "line", ["rsk-plain alice", "sha256:abc alice", "md5:" + "0" * 64 + " a", "sha256:" + "0" * 64]
)
def test_a_line_that_is_not_a_hash_and_a_name_is_refused_with_its_number(line):
    with pytest.raises(ConfigError, match="line 2"):
        parse_keys(f"# keys\n{line}\n")


def test_keys_of_the_environment_are_hashed_at_once():
    assert load_keys("", {"REASOND_API_KEYS": " a ,, b"}) == {
        digest("a"): "environment-1",
        digest("b"): "environment-2",
    }
    assert load_keys("", {}) == {}


def test_sighup_reads_the_keys_again_and_keeps_them_where_it_cannot(tmp_path):
    keys, settings = tmp_path / "keys", tmp_path / "settings.toml"
    settings.write_text(f'[server]\nkeys_file = "{keys}"\n{ENGINE_AND_ROUTE}')
    keys.write_text(key_line("old", "alice"))

    def statuses() -> list[int]:
        asked = [httpx.get(f"{url}/v1/models", headers={"x-api-key": key}) for key in ("old", "new")]
        return [answer.status_code for answer in asked]

    def until_told(count: int) -> None:
        deadline = time.monotonic() + 10
        while len(re.findall("keys may call|keys stay", (tmp_path / "log").read_text())) < count:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    with reasond(settings, log=tmp_path / "log") as (url, process):
        for number, text in enumerate((key_line("new", "bob"), "nonsense", "# none"), 1):
            keys.write_text(text)
            process.send_signal(signal.SIGHUP)
            until_told(number)
            assert statuses() == [401, 200]
    assert (tmp_path / "log").read_text().count("the keys stay as they were") == 2
