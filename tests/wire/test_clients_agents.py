"""What coding agents send: Claude Code on /v1/messages, Codex on /v1/responses, as it was seen on the wire."""

import json
from typing import Any

import httpx
import pytest

from server.apis.messages.seal import Seal
from server.apis.shared.custom_calls import CustomInput, input_of
from tests.wire.conversations import (
    AGAIN,
    CONFIG,
    ONLY_FIRST,
    SHOWS,
    THOUGHT,
    TOOLS,
    USER,
    ask,
    called,
    chat,
    message,
    response,
    tokenizer_with,
)
from tests.wire.served import served

KINDS = (
    CONFIG
    + """
[routes.direct]
engine = "demo"
family = "qwen3"
mode = "no_think"
"""
)
CLAUDE = {
    "thinking": {"type": "adaptive", "display": "omitted"},
    "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "metadata": {"user_id": "u"},
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
}
CLEARED = "context_management: nothing of the conversation is cleared: the model reads it as it was sent"


@pytest.mark.parametrize("thinking", [{}, {"budget_tokens": 0}, {"display": "updates"}, {"display": "summarized"}])
@pytest.mark.parametrize(("model", "mode"), [("q", "think"), ("direct", "no_think")])
def test_adaptive_thinking_is_the_routes_own_mode(asks, model, mode, thinking):
    body = {**CLAUDE, "thinking": {**CLAUDE["thinking"], **thinking}, "model": model}
    seen = asks(*message(USER, {"role": "system", "content": "# Environment"}, **body), ONLY_FIRST + SHOWS, KINDS)
    assert seen.prompt == "[system]s\n\n# Environment[user]hi"
    record = seen.records[-1]
    assert (record["mode"], record["chosen_by"]) == (mode, "route")
    assert seen.notes == [CLEARED]


def test_adaptive_thinking_and_efforts_say_nothing_to_a_model_that_never_thinks(asks):
    plain = "{%- for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    for fields in (CLAUDE, {"output_config": {"effort": "high"}}):
        seen = asks(*message(USER, **fields), plain, CONFIG.replace("qwen3", "plain").replace('"think"', '"no_think"'))
        assert (seen.records[-1]["mode"], seen.records[-1]["chosen_by"]) == ("no_think", "route")


def test_an_effort_beside_adaptive_thinking_is_its_budget(asks):
    record = asks(*message(USER, **CLAUDE)).records[-1]
    assert record["budget"]["requested"] == 4096


def test_the_session_can_begin_with_a_count_of_tokens():
    seen = ask("/v1/messages/count_tokens?beta=true", {"messages": [USER], **CLAUDE})
    assert seen.status == 200
    assert json.loads(seen.text)["input_tokens"] > 0


def test_thinking_that_is_on_with_a_budget_of_0_has_no_budget(asks):
    record = asks(*message(USER, thinking={"type": "enabled", "budget_tokens": 0})).records[-1]
    assert (record["mode"], record.get("budget")) == ("think", None)


def test_what_is_not_done_for_a_client_is_told(asks):
    extra = {"safeguards": [{"type": "dangerous_tool_use"}], "betas": ["x"], "container": None, "mcp_servers": []}
    assert asks(*message(USER, **extra)).notes == ["safeguards: no tool use is checked"]


def test_a_tool_is_called_without_thinking(asks):
    answer = '<tool_call>\n{"name": "find", "arguments": {"a": 1}}\n</tool_call>'
    seen = asks(*message(USER, tools=[FIND], thinking={"type": "disabled"}), TOOLS + SHOWS, reply=answer)
    assert seen.records[-1]["mode"] == "no_think"
    assert '"tool_use"' in seen.text


def test_a_thread_is_refused_so_that_the_client_sends_all_itself(asks):
    seen = asks(*message(USER, thread={"type": "create"}))
    assert seen.status == 400
    details = json.loads(seen.text)["error"]["details"]
    assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


KEY = "[server]\nport = 0\nseal_key = '" + "ab" * 32 + "'\n"


def test_a_sealed_thought_is_read_back(asks):
    sealed = Seal(bytes.fromhex("ab" * 32)).seal("old")
    turn = {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": sealed}, CALLED]}
    seen = asks(*message(USER, turn, RESULT), config=KEY + CONFIG)
    assert seen.prompt == f"[user]hi[assistant]{THOUGHT}{called('find')}[tool]r"
    assert seen.notes == []


def test_a_seal_is_the_same_each_time_and_of_its_key_alone():
    one, other = Seal(b"1" * 16), Seal(b"2" * 16)
    sealed = one.seal("a thought")
    assert one.seal("a thought") == sealed
    assert one.unseal(sealed) == "a thought"
    broken = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    for wrong in (other.seal("a thought"), broken, "", "no base64", "AAAA"):
        assert one.unseal(wrong) is None


CALLED = {"type": "tool_use", "id": "t", "name": "find", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "r"}]}
FOUND = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "x"}]}],
}
FIND = {"name": "find", "input_schema": {"type": "object"}}
DEFERRED = [{"name": name, "input_schema": {"type": "object"}, "defer_loading": True} for name in "xyz"]


@pytest.mark.parametrize(
    ("turns", "tools", "named"),
    [
        ([USER], [FIND, *DEFERRED], ["find"]),
        ([USER, {"role": "assistant", "content": [CALLED]}, FOUND], [FIND, *DEFERRED], ["find", "x"]),
        ([USER], [{"type": "tool_search_tool_regex_20251119", "name": "search"}, *DEFERRED], ["x", "y", "z"]),
    ],
)
def test_a_deferred_tool_is_shown_when_a_reference_names_it(asks, turns, tools, named):
    seen = asks(*message(*turns, tools=tools), TOOLS + SHOWS)
    shown = seen.prompt.partition("[user]")[0]
    assert [name for name in ("find", "x", "y", "z") if f'"name": "{name}"' in shown] == named


def test_hundreds_of_tools_are_shown(asks):
    tools = [{"name": f"t{i}", "input_schema": {"type": "object"}} for i in range(200)]
    assert '"name": "t199"' in asks(*message(USER, tools=tools), TOOLS + SHOWS).prompt


CODEX: dict[str, Any] = {
    "tools": [
        {"type": "function", "name": "shell", "parameters": {"type": "object"}},
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "patches",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
        },
        {"type": "web_search", "external_web_access": True},
        {
            "type": "namespace",
            "name": "agents",
            "description": "others",
            "tools": [{"type": "function", "name": "spawn", "parameters": {"type": "object"}}],
        },
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto", "context": "all_turns"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "client_metadata": {"a": "b"},
}
DEVELOPER = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]}
SAYS = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
NOBODY = "tools.2: web_search is run by nobody here and was left out"


def test_codex_is_answered(asks):
    seen = asks(*response(DEVELOPER, DEVELOPER, SAYS, SAYS, **CODEX), ONLY_FIRST + TOOLS + SHOWS)
    tools, _, rest = seen.prompt.partition("[system]")
    assert rest == "rules\n\nrules[user]hi[user]hi"
    assert '"name": "agents__spawn"' in tools
    assert '"name": "apply_patch"' in tools
    assert '"input": {"type": "string"}' in tools
    assert "web_search" not in tools
    assert seen.notes == [NOBODY]


def test_hosted_tools_are_refused_where_the_server_says_so(asks):
    seen = asks(*response(SAYS, **CODEX), TOOLS + SHOWS, "[server]\nrefuse_hosted_tools = true\n" + CONFIG)
    assert seen.status == 400
    assert json.loads(seen.text)["error"]["param"] == "tools.2.type"


PATCH = '*** Begin Patch\n+ "a\\b" \u00e9 \U0001f600 </think>\n*** End Patch'


@pytest.mark.parametrize("escapes", [True, False])
def test_a_custom_tools_input_comes_as_it_is(asks, escapes):
    arguments = json.dumps({"input": PATCH}, ensure_ascii=escapes)
    reply = f'<tool_call>\n{{"name": "apply_patch", "arguments": {arguments}}}\n</tool_call>'
    seen = asks(*response(SAYS, **CODEX), TOOLS + SHOWS, reply=reply)
    (item,) = [item for item in seen.output if item["type"] == "custom_tool_call"]
    assert (item["name"], item["input"]) == ("apply_patch", PATCH)
    if seen.events:
        deltas = [event for event in seen.events if event["type"] == "response.custom_tool_call_input.delta"]
        assert "".join(event["delta"] for event in deltas) == PATCH
        assert len(deltas) > 3
        done = next(event for event in seen.events if event["type"] == "response.custom_tool_call_input.done")
        assert done["input"] == PATCH


CUSTOM = {"type": "custom", "custom": {"name": "apply_patch"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CUSTOM]}}


@pytest.mark.parametrize("choice", ["auto", "required", CUSTOM, ALLOWED])
def test_a_custom_tool_of_chat_is_called_with_its_input(asks, choice):
    form = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /.+/"}}
    tool = {"type": "custom", "custom": {**CUSTOM["custom"], "format": form}}
    reply = f'<tool_call>\n{{"name": "apply_patch", "arguments": {json.dumps({"input": PATCH})}}}\n</tool_call>'
    seen = asks(*chat(USER, tools=[tool], tool_choice=choice), TOOLS + SHOWS, reply=reply)
    assert "start: /.+/" in seen.prompt
    assert seen.told.calls == [("apply_patch", PATCH)]


def test_the_input_of_a_custom_tool_of_chat_that_is_written_otherwise_is_all_of_it(asks):
    """A penalty lets the model write without a grammar."""
    reply = '<tool_call>\n{"name": "apply_patch", "arguments": {"patch": "x"}}\n</tool_call>'
    seen = asks(*chat(USER, tools=[CUSTOM], presence_penalty=0.5), TOOLS + SHOWS, reply=reply)
    assert seen.told.calls == [("apply_patch", '{"patch": "x"}')]


def test_an_earlier_call_of_a_custom_tool_of_chat_is_read(asks):
    call = {"id": "c", "type": "custom", "custom": {"name": "apply_patch", "input": "p"}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    seen = asks(*chat(USER, turn, {"role": "tool", "tool_call_id": "c", "content": "done"}))
    patch = called("apply_patch", '"input": "p"')
    assert seen.prompt == f"[user]hi[assistant]{patch}[tool]done"


def test_a_tool_of_a_namespace_is_called_by_its_own_name(asks):
    reply = '<tool_call>\n{"name": "agents__spawn", "arguments": {"a": 1}}\n</tool_call>'
    seen = asks(*response(SAYS, **CODEX), TOOLS + SHOWS, reply=reply)
    (item,) = [item for item in seen.output if item["type"] == "function_call"]
    assert (item["namespace"], item["name"], json.loads(item["arguments"])) == ("agents", "spawn", {"a": 1})


@pytest.mark.parametrize("cuts", [1, 2, 3, 7, 1000])
def test_the_input_of_a_custom_tool_is_read_from_any_pieces(cuts):
    arguments = '  { "input" : ' + json.dumps(PATCH + "\x00\t/") + " }"
    reader = CustomInput()
    pieces = [reader.feed(arguments[i : i + cuts]) for i in range(0, len(arguments), cuts)]
    assert "".join(pieces) == PATCH + "\x00\t/" == input_of(arguments)


def test_the_input_of_a_custom_tool_that_is_written_otherwise_is_all_of_it():
    assert input_of('{"patch": "x"}') == '{"patch": "x"}'
    assert CustomInput().feed('{"patch": "x"}') == ""
    assert input_of(r'{"input": "\ud800"}') == "\ufffd"
    assert input_of(r'{"input": "\ud800a\ud800\n"}') == "\ufffda\ufffd\n"
    assert input_of('{"input": "cut of') == "cut of"


HISTORY = [
    SAYS,
    {"type": "local_shell_call", "call_id": "a", "status": "completed", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "local_shell_call_output", "call_id": "a", "output": "x.py"},
    {"type": "custom_tool_call", "call_id": "b", "name": "apply_patch", "input": "p"},
    {"type": "custom_tool_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "done"}]},
    {"type": "function_call", "call_id": "c", "namespace": "agents", "name": "spawn", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "ok"},
]


def test_the_calls_of_earlier_turns_are_read(asks):
    shell = called("local_shell", '"type": "exec", "command": ["ls"]')
    patch, spawn = called("apply_patch", '"input": "p"'), called("agents__spawn")
    seen = asks(*response(*HISTORY))
    assert seen.prompt == f"[user]hi[assistant]{shell}[tool]x.py[assistant]{patch}[tool]done[assistant]{spawn}[tool]ok"


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_may_be_called(asks, mode):
    allowed = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "shell"}]}
    reply = '<tool_call>\n{"name": "shell", "arguments": {}}\n</tool_call>'
    seen = asks(*response(SAYS, **{**CODEX, "tool_choice": allowed}), TOOLS + SHOWS, reply=reply)
    assert '"name": "apply_patch"' in seen.prompt
    assert seen.grammars
    assert all("apply_patch" not in grammar for grammar in seen.grammars)


def test_allowed_tools_of_chat_are_read(asks):
    function = {"type": "function", "function": {"name": "f"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function]}}
    other = {"type": "function", "function": {"name": "g"}, "cache_control": {"type": "ephemeral"}}
    seen = asks(*chat(USER, tools=[function, other], tool_choice=allowed), TOOLS + SHOWS)
    assert all('"g' not in grammar for grammar in seen.grammars)
    assert seen.grammars


def test_an_allowed_tool_that_there_is_not_is_refused(asks):
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "nobody"}]}
    assert asks(*response(SAYS, **{**CODEX, "tool_choice": allowed}), TOOLS + SHOWS).status == 400


def test_an_item_of_a_kept_response_may_be_referred_to(monkeypatch):
    monkeypatch.delenv("REASOND_API_KEYS", raising=False)
    tokenizer = tokenizer_with(SHOWS)
    prompts: list[str] = []

    def script(prompt, sampling):
        prompts.append(tokenizer.decode(prompt.token_ids, skip_special_tokens=False))
        return "old</think>4"

    with served(tokenizer, script, CONFIG, context_length=2048) as server, httpx.Client(base_url=server.url) as client:
        first = client.post("/v1/responses", json={"model": "q", "input": "hi"}).json()
        references = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
        again = {"model": "q", "input": [USER, *references, AGAIN]}
        second = client.post("/v1/responses", json=again)
        assert second.status_code == 200
        third = client.post("/v1/responses", json={"model": "q", "input": [{"id": "rs_unknown"}]})
    assert prompts[1].startswith(f"[user]hi[assistant]{THOUGHT}4[user]go on[assistant]")
    assert third.json()["error"]["param"] == "input.0.id"
