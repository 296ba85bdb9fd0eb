"""Judge routes in the settings: what is refused, with which key."""

import re

import pytest

from server.config.load import ConfigError, parse_config
from tests.server.conftest import ROOT

JUDGE = """
[engines.e]
kind = "scripted"
model = "demo/tokenizer"

[routes.judge]
engine = "e"
family = "lhrm"
controller = "judge"
"""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('judge = { family = "oracle" }', "routes.judge.judge.family: unknown judge family 'oracle'; known: rrm"),
        ("judge = { votes = 0 }", "routes.judge.judge.votes"),
        ('judge = { templates = { pair = "none.txt" } }', "routes.judge.judge.templates: 'none.txt' does not exist"),
        ('judge = { templates = { triple = "x" } }', "routes.judge.judge.templates.triple"),
        ('judge = { family = "rrm_short", rubric = "x" }', "routes.judge.judge: family 'rrm_short' judges no rubric"),
        ('[rewards]\njudge = "other"', "rewards.judge: no judge route 'other'"),
        ('judged_by = "judge"', "routes.judge.judged_by: a judge's own replies are not ranked"),
        ('[routes.r]\nengine = "e"\nfamily = "lhrm"\njudged_by = "r"', "routes.r.judged_by: no judge route 'r'"),
        ('[routes.r]\nengine = "e"\nfamily = "lhrm"\nbest_of = 4', "routes.r.best_of: needs judged_by"),
        ('[routes.r]\nengine = "e"\nfamily = "lhrm"\njudge = {}', "routes.r.judge: only a route whose controller"),
    ],
)
def test_a_wrong_judge_is_told_by_its_key(more, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(JUDGE + more, ROOT)


def test_a_template_without_its_places_is_told_before_anything_starts(tmp_path):
    (tmp_path / "own.txt").write_text("[user]\n{query} {first}")
    with pytest.raises(ConfigError, match=r"routes\.judge\.judge\.templates: .*needs \{second\}"):
        parse_config(JUDGE + 'judge = { templates = { pair = "own.txt" } }', tmp_path)
