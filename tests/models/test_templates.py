"""What is known of a chat template before anybody asks."""

from pathlib import Path

import pytest

from models.formats import FAMILIES
from models.formats.template import writes_calls
from models.text.tokenizer import HubTokenizer

TEMPLATE = Path("demo/tokenizer/chat_template.jinja").read_text(encoding="utf-8")
CALL = "'<tool_call>' + {'name': call.function.name, 'arguments': call.function.arguments} | tojson + '</tool_call>'"
FUNCTION = "'<tool_call>\\n<function=' + call.function.name + '></function></tool_call>'"
REFUSAL = "raise_exception('no tools here')"


@pytest.mark.parametrize(
    ("template", "offers"),
    [
        (TEMPLATE, True),
        (TEMPLATE.replace(CALL, CALL.replace("<tool_call>", "<call>")), False),
        (TEMPLATE.replace(CALL, FUNCTION), False),
        (TEMPLATE.replace(CALL, "''"), False),
        (TEMPLATE.replace(CALL, REFUSAL), False),
        (TEMPLATE.replace("tool | tojson", "''"), False),
    ],
    ids=["as read", "other tags", "other content", "no calls", "refused", "no tools"],
)
def test_calls_are_offered_where_the_template_writes_them_as_they_are_read(template: str, offers: bool) -> None:
    assert CALL in TEMPLATE
    assert writes_calls(FAMILIES["hermes"], HubTokenizer("demo/tokenizer", chat_template=template)) == offers
