import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.cli import main
from loadtest.load.machine import scheduler_warning
from tests.loadtest.emitted import Emitted

PLAN = json.dumps({"emit": {"id": "cli", "first": 0.01, "gap": 0.001, "reasoning": 4, "answer": 2}})


def common(emitted: Emitted) -> list[str]:
    return ["--url", emitted.target.url, "--model", "m", "--body", PLAN, "--quiet"]


def test_a_run_gives_a_table_json_csv_and_a_page(
    emitted: Emitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name for name in ("out.json", "out.csv", "out.html")]
    outputs = ["--json", str(files[0]), "--csv", str(files[1]), "--html", str(files[2])]
    asked = ["run", *common(emitted), "--requests", "12", "--concurrency", "3", "--goal", "ttft:5000", *outputs]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "12 of 12 succeeded, 3 at once at most" in printed
    assert max(map(len, printed.splitlines())) <= 110
    (run,) = json.loads(files[0].read_text())["runs"]
    assert run["requests"] == 12 and run["measures"]["reasoning_tokens"]["mean"] == 4
    assert run["goodput"]["fraction"]["value"] == 1
    rows = list(csv.DictReader(files[1].read_text().splitlines()))
    assert len(rows) == 12 and rows[0]["output_tokens"] == "6" and rows[0]["answer"] == "4 4 "
    assert files[2].read_text().startswith("<!doctype html>")


def test_progress_goes_to_standard_error(emitted: Emitted, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *common(emitted)[:-1], "--requests", "4", "--warmup", "2"]) == 0
    told = capsys.readouterr()
    assert "4/4 done · 0 running" in told.err and "done" not in told.out


def test_a_sweep_and_a_search_and_a_comparison(
    emitted: Emitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out.html"
    assert main(["sweep", *common(emitted), "--requests", "6", "--concurrencies", "1,2", "--html", str(page)]) == 0
    assert "Levels of load" in page.read_text()
    goal = ["--goal", "e2el:200", "--first-rate", "40", "--trial-seconds", "0.1", "--precision", "100"]
    assert main(["search", *common(emitted), "--max-concurrency", "1", "--requests", "2", *goal]) == 0
    assert "highest rate that met the goals" in capsys.readouterr().out
    url = emitted.target.url
    sides = ["compare", url, url, *common(emitted)[2:], "--requests", "12", "--rounds", "2", "--warmup", "1"]
    data = tmp_path / "out.json"
    assert main([*sides, "--side", 'third={"model": "n"}', "--html", str(page), "--json", str(data)]) == 0
    printed = capsys.readouterr().out
    assert f"third: n at {url}" in printed and "Ratios, A over third" in printed
    said = json.loads(data.read_text())
    assert [group["name"] for group in said["groups"]] == ["A", "B", "third"]
    assert all("requests_per_second" in said["ratios"][pair] for pair in ("A / B", "A / third"))
    assert "Ratios, A over B" in page.read_text()


@pytest.mark.parametrize(
    "wrong",
    [
        ["run"],
        ["run", "--model", "m", "--goal", "speed:3"],
        ["run", "--model", "m", "--body", "[]"],
        ["run", "--model", "m", "--key-env", "NO_SUCH_NAME_IS_SET"],
        ["run", "--model", "m", "--variant", "nameless"],
        ["run", "--model", "m", "--rate", "1", "--concurrency", "1"],
        ["search", "--model", "m"],
        ["compare", "http://127.0.0.1:9", "--model", "m"],
        ["compare", "--model", "m", "--side", "nameless"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(wrong)
    assert refused.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_workload_line_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "work.jsonl"
    path.write_text("{}\n")
    with pytest.raises(SystemExit):
        main(["run", "--model", "m", "--data", str(path)])
    assert "work.jsonl, line 1" in capsys.readouterr().err


def test_no_server_is_an_exit_status_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model", "m", "--url", "http://127.0.0.1:9", "--quiet"]) == 1
    assert "reasond-load:" in capsys.readouterr().err


def test_a_run_in_which_all_failed_is_an_exit_status_of_one(emitted: Emitted) -> None:
    refused = json.dumps({"emit": {"id": "cli", "status": 500}})
    assert main(["run", *common(emitted), "--requests", "2", "--body", refused]) == 1


@pytest.mark.parametrize(
    ("url", "setting", "warned"),
    [
        ("http://127.0.0.1:8000", "1\n", True),
        ("localhost:8000/v1", "1\n", True),
        ("http://[::1]:8000", "1\n", True),
        ("http://127.0.0.1:8000", "0\n", False),
        ("http://127.0.0.1:8000", None, False),
        ("http://example.com:8000", "1\n", False),
    ],
)
def test_a_server_on_the_same_machine_may_share_its_scheduler_with_the_client(
    url: str, setting: str | None, warned: bool, tmp_path: Path
) -> None:
    file = tmp_path / "sched_autogroup_enabled"
    if setting is not None:
        file.write_text(setting)
    said = scheduler_warning(url, file)
    assert (said is not None) is warned
    if said is not None:
        assert f"echo 0 > {file}" in said


def test_the_warning_goes_to_standard_error_even_without_progress(
    emitted: Emitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "on"
    file.write_text("1")
    monkeypatch.setattr("loadtest.cli.AUTOGROUP", file)
    assert main(["run", *common(emitted), "--requests", "1"]) == 0
    assert str(file) in capsys.readouterr().err


def test_a_page_without_matplotlib_is_refused_before_any_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    nobody = ["run", "--url", "http://127.0.0.1:9", "--model", "m"]
    with pytest.raises(SystemExit, match="2"):
        main([*nobody, "--html", str(tmp_path / "out.html")])
    assert "pip install 'reasond[report]'" in capsys.readouterr().err.splitlines()[-1]


def test_the_command_starts_without_the_libraries_of_figures_and_pages() -> None:
    code = "import sys, loadtest.cli; print(*({'numpy', 'matplotlib'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
