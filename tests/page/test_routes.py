"""The page's files: who gets them, with which headers, and when there are none."""

import re
import tomllib
from collections.abc import Iterator
from typing import get_args

import pytest
from starlette.testclient import TestClient

from controllers.generation.events import ChosenBy, Cut, CutBy, TargetFailure
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import parse_config
from server.page.routes import FILES, FOLDER, PATHS
from tests.processes import ROOT
from tests.server.conftest import ENGINE_AND_ROUTE

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
KEY = "rsk-test"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    from models.engines.scripted import ScriptedEngine

    def client(settings: str = "", keys: str = "") -> TestClient:
        monkeypatch.setenv("REASOND_API_KEYS", keys)
        engine = ScriptedEngine(HubTokenizer(ROOT / "demo/tokenizer"), ["<no_think>5</no_think>"], name="demo")
        return TestClient(create_app(parse_config(settings + ENGINE_AND_ROUTE, ROOT), {"demo": engine}))

    return client


def test_a_browser_gets_the_page_and_another_client_does_not(make):
    client = make()
    page = client.get("/", headers=HTML)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>reasond</title>" in page.text
    assert client.get("/", headers={"accept": "*/*"}).headers["content-type"] == "application/json"
    assert client.get("/status").status_code == 200


@pytest.mark.parametrize("path", sorted(PATHS))
def test_every_file_forbids_foreign_hosts_and_inline_script_and_is_open_without_a_key(make, path):
    answer = make(keys=KEY).get(path, headers=HTML)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_the_page_asks_for_stays_behind_the_key(make):
    client = make(keys=KEY)
    assert {client.get(path).status_code for path in ("/v1/models", "/metrics", "/page", "/statusx")} == {401}
    assert client.get("/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_the_page_can_be_turned_off(make):
    client = make("[server]\npage = false\n", keys=KEY)
    others = PATHS - {"/"}
    assert {client.get(path, headers=HTML).status_code for path in others} == {401}
    assert client.get("/", headers=HTML).json()["server"] == "reasond", "it says what runs here, and nothing more"
    client = make("[server]\npage = false\n")
    assert {client.get(path, headers=HTML).status_code for path in others} == {404}


def test_a_browser_that_has_a_file_is_not_sent_it_again(make):
    client = make()
    first = client.get("/page/chat.js")
    again = client.get("/page/chat.js", headers={"if-none-match": first.headers["etag"]})
    assert (first.headers["content-type"], again.status_code, again.content) == (
        "text/javascript; charset=utf-8",
        304,
        b"",
    )


@pytest.mark.parametrize("path", ["/page/none.js", "/page/../routes.py", "/page/%2e%2e/routes.py", "/page/"])
def test_nothing_but_the_pages_files_is_served(make, path):
    assert make().get(path).status_code == 404


def test_documents_hold_no_inline_script_and_name_only_files_that_are_there():
    for document in FOLDER.glob("*.html"):
        text = document.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", text)
        named = set(re.findall(r'(?:src|href)="(page/[^"]+)"', text))
        assert named and {f"/{name}" for name in named} <= FILES.keys()


def test_modules_import_only_files_that_are_there():
    for module in FOLDER.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', module.read_text(encoding="utf-8")):
            assert f"/page/{name}" in FILES, (module.name, name)


@pytest.mark.parametrize(
    ("words", "values"), [("CHOSEN_BY", ChosenBy), ("CUT", Cut), ("CUT_BY", CutBy), ("FAILURE", TargetFailure)]
)
def test_the_page_has_words_for_whatever_a_record_may_say(words, values):
    text = (FOLDER / "record.js").read_text(encoding="utf-8")
    table = re.search(rf"^const {words} = {{(.*?)}};", text, re.M | re.S)
    assert table and set(re.findall(r"(\w+): \"", table[1])) == set(get_args(values))


def test_the_package_takes_the_static_files_along():
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "server" in built["packages"] and not {"exclude", "include", "only-include"} & built.keys()
    assert (FOLDER / "vendor/LICENSES.md").is_file()
