"""The cases: about 300, with requests of all APIs and kinds, each to a server of its own."""

from collections.abc import Iterator
from typing import Any

from tests.recorded import setups as at
from tests.recorded.project import Setup
from tests.recorded.replay import Ask, Case

QUESTION = [{"role": "user", "content": "what is 2+2?"}]
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
ADD = {"type": "function", "function": {"name": "add", "description": "adds", "parameters": PARAMETERS}}
SUB = {"type": "function", "function": {"name": "sub", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "add"}}
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
USAGE = {"include_usage": True}
ALL_USAGE = {"include_usage": True, "continuous_usage_stats": True}
CHAT, RAW, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"


def get(path: str, **options: Any) -> Ask:
    return Ask("GET", path, **options)


def post(path: str, body: Any = None, **options: Any) -> Ask:
    return Ask("POST", path, body, **options)


def chat(model: str = "demo", key: str = "", **fields: Any) -> Ask:
    return post(CHAT, {"model": model, "messages": QUESTION, **fields}, headers={"x-api-key": key} if key else {})


def raw(**fields: Any) -> Ask:
    return post(RAW, {"model": "demo", "prompt": "count", "max_tokens": 50, **fields})


def response(**fields: Any) -> Ask:
    return post(RESPONSES, {"model": "demo", "input": "what is 2+2?", **fields})


def message(**fields: Any) -> Ask:
    return post(MESSAGES, {"model": "demo", "max_tokens": 200, "messages": QUESTION, **fields})


def case(name: str, setup: Setup, *asks: Ask) -> Case:
    return Case(name, setup, asks)


def both(name: str, setup: Setup, ask: Ask) -> Iterator[Case]:
    """A request whole and as a stream."""
    yield Case(name, setup, (ask,))
    yield Case(f"{name}-stream", setup, (Ask(ask.method, ask.path, {**ask.body, "stream": True}, ask.headers),))


def _modes() -> Iterator[Case]:
    yield from both("chat/auto-thinks", at.THINKS, chat())
    yield from both("chat/auto-answers", at.DIRECTLY, chat())
    yield from both("chat/think", at.THINKS, chat(reasond={"mode": "think"}))
    yield from both("chat/no-think", at.lhrm(at.says(f"{at.ANSWER}</no_think>")), chat(reasond={"mode": "no_think"}))
    yield case("chat/default-no-think", at.lhrm(at.says("4 " * 40)), chat("direct"))
    yield from both("chat/threshold-reached", at.lhrm(at.unsure(-0.1, -2.0)), chat("careful"))
    yield case("chat/threshold-missed", at.lhrm(at.unsure(-2.0, -0.1)), chat("careful"))
    yield case("chat/threshold-asked", at.lhrm(at.unsure(-2.0, -0.1)), chat(reasond={"think_threshold": 0.01}))
    yield case("chat/threshold-without-auto", at.THINKS, chat(reasond={"mode": "think", "think_threshold": 0.1}))
    yield case("chat/model-says-neither", at.lhrm(at.says("just 4")), chat())
    yield case("chat/ends-in-thought", at.lhrm(at.says("<think>hm")), chat())
    yield case("chat/empty-reply", at.lhrm(at.says("")), chat())


def _budgets() -> Iterator[Case]:
    yield from both("chat/budget-hard", at.RAMBLES, chat("capped", thinking_budget=12))
    yield from both("chat/budget-graceful", at.RAMBLES, chat("kind"))
    yield case("chat/budget-graceful-line-end", at.lhrm(at.writes(thought="1 and 1.\n" * 30)), chat("kind"))
    yield case("chat/budget-cap", at.RAMBLES, chat("capped", thinking_budget=1000))
    yield case("chat/budget-unlimited", at.RAMBLES, chat(thinking_budget=-1))
    yield case("chat/budget-zero", at.RAMBLES, chat(thinking_budget=0))
    yield case("chat/budget-effort-of-route", at.RAMBLES, chat("capped", reasoning_effort="low"))
    yield case("chat/budget-reserve", at.RAMBLES, chat("kind", max_tokens=60))
    yield case("chat/budget-reserve-no-room", at.RAMBLES, chat("kind", max_tokens=10))
    yield case("chat/budget-min-tokens", at.RAMBLES, chat(thinking_budget=12, min_tokens=30, reasond={"cut": "hard"}))
    yield case("chat/budget-max-tokens", at.RAMBLES, chat(max_tokens=20))
    yield case("chat/budget-scoped", at.RAMBLES, chat(reasond={"budget": {"tokens": 9, "scope": "thinking"}}))
    yield case(
        "chat/budget-refused",
        at.RAMBLES,
        chat(enable_thinking=True, thinking_budget=0),
        chat(reasond={"budget": {"tokens": 5, "scope": "reply"}}),
        chat(chat_template_kwargs={"thinking_budget": 5}),
        chat("capped", thinking_budget=5, presence_penalty=0.5),
        chat("capped", thinking_budget=5, presence_penalty=0.5, stream=True),
        chat(thinking_budget="many"),
        chat(reasond={"prefill": True}),
        chat("plain", thinking_budget=5),
    )
    yield from both("chat/budget-native", at.NATIVE, chat(thinking_budget=12, reasond={"cut": "hard"}))
    yield from both(
        "chat/budget-logprobs", at.RAMBLES, chat("capped", thinking_budget=4, logprobs=True, return_token_ids=True)
    )
    yield case("chat/budget-of-key", at.KEYED, chat("demo", "one"), chat("demo", "one", thinking_budget=1000))
    yield case("chat/budget-of-other-key", at.KEYED, chat("capped", "two", thinking_budget=1000))
    yield case("chat/budget-in-time", at.TAKES_TIME, chat("kind"), chat("kind", stream=True, stream_options=ALL_USAGE))


CONTROLS: dict[str, dict[str, Any]] = {
    "reasoning-effort-none": {"reasoning_effort": "none"},
    "reasoning-effort-low": {"reasoning_effort": "low"},
    "reasoning-effort-max": {"reasoning_effort": "max"},
    "reasoning-effort": {"reasoning": {"effort": "minimal", "summary": "auto"}},
    "reasoning-enabled": {"reasoning": {"enabled": False}},
    "reasoning-max-tokens": {"reasoning": {"max_tokens": 12}},
    "reasoning-exclude": {"reasoning": {"exclude": True}},
    "thinking-enabled": {"thinking": {"type": "enabled", "budget_tokens": 12}},
    "thinking-disabled": {"thinking": {"type": "disabled"}},
    "thinking-adaptive": {"thinking": {"type": "adaptive", "display": "omitted"}},
    "output-config-effort": {"output_config": {"effort": "medium"}},
    "enable-thinking": {"enable_thinking": False},
    "think": {"think": True},
    "think-effort": {"think": "high"},
    "template-enable-thinking": {"chat_template_kwargs": {"enable_thinking": False}},
    "template-thinking": {"chat_template_kwargs": {"thinking": True}},
    "thinking-token-budget": {"thinking_token_budget": 12},
    "thinking-budget": {"thinking_budget": 12},
    "thinking-budget-tokens": {"thinking_budget_tokens": 12},
    "reasoning-budget-tokens": {"reasoning_budget_tokens": 12},
    "max-thinking-tokens": {"max_thinking_tokens": 12},
    "nvext": {"nvext": {"max_thinking_tokens": 12}},
    "reasond": {"reasond": {"mode": "think", "budget": 12, "cut": "hard"}},
}


def _controls() -> Iterator[Case]:
    for name, fields in CONTROLS.items():
        yield case(f"controls/{name}", at.RAMBLES, chat(**fields))
    yield from both("controls/include-reasoning", at.THINKS, chat(include_reasoning=False))
    yield case(
        "controls/hidden-with-token-ids",
        at.THINKS,
        chat(include_reasoning=False, return_token_ids=True, stream=True, stream_options=ALL_USAGE),
    )
    yield case(
        "controls/refused",
        at.THINKS,
        chat(enable_thinking=True, reasoning_effort="none"),
        chat(reasoning_effort="extreme"),
        chat(reasond={"mode": "maybe"}),
        chat(reasond={"unknown": 1}),
        chat(reasond=5),
        chat(thinking={"type": "off"}),
        chat(think=1),
        chat(thinking_budget=3, max_thinking_tokens=4),
        chat("plain", enable_thinking=True),
        chat(reasond={"speculative": {"target": False}}),
        chat(reasond={"best_of": 2}),
        chat(reasond={"think_threshold": 2}),
    )


def _sampling() -> Iterator[Case]:
    yield from both("chat/choices", at.SEEDED, chat(n=3, seed=7))
    yield case("chat/choices-usage", at.SEEDED, chat(n=2, seed=7, stream=True, stream_options=ALL_USAGE))
    yield from both("chat/stop", at.THINKS, chat(stop=["4", "x"]))
    yield case("chat/stop-included", at.THINKS, chat(stop="4", include_stop_str_in_output=True))
    yield case("chat/stop-cancelled", at.lhrm(at.says("<no_think>it was cancelled</no_think>")), chat(stop="cancelled"))
    yield from both("chat/logprobs", at.THINKS, chat(logprobs=True, top_logprobs=2))
    yield from both("chat/token-ids", at.THINKS, chat(return_token_ids=True))
    yield case("chat/usage", at.CACHED, chat(stream=True, stream_options=USAGE), chat())
    yield case("chat/continuous-usage", at.THINKS, chat(stream=True, stream_options=ALL_USAGE))
    yield case("chat/stop-token", at.THINKS, chat(stop_token_ids=[262, 300, 301, 302], return_token_ids=True))
    yield case("chat/special-tokens-shown", at.THINKS, chat(skip_special_tokens=False))
    yield case("chat/ignored-fields", at.THINKS, chat(user="me", metadata={"a": "b"}, store=True, verbosity="low"))


def _shapes() -> Iterator[Case]:
    yield from both("chat/tools", at.CALLS, chat(tools=[ADD, SUB]))
    yield from both("chat/tools-twice", at.CALLS_TWICE, chat(tools=[ADD]))
    yield case("chat/tools-required", at.CALLS, chat(tools=[ADD], tool_choice="required"))
    yield case("chat/tools-named", at.CALLS, chat(tools=[ADD, SUB], tool_choice=NAMED))
    yield from both("chat/tools-one-at-a-time", at.CALLS_TWICE, chat(tools=[ADD], parallel_tool_calls=False))
    yield case("chat/tools-none", at.CALLS, chat(tools=[ADD], tool_choice="none"))
    yield case("chat/tools-unused", at.THINKS, chat(tools=[ADD]))
    yield case("chat/tools-under-budget", at.RAMBLES_AND_CALLS, chat(tools=[ADD], thinking_budget=8))
    yield from both("chat/format-schema", at.FORMS, chat(response_format=FORMAT))
    yield case("chat/format-object", at.FORMS, chat(response_format={"type": "json_object"}))
    yield case("chat/format-regex", at.FORMS, chat(structured_outputs={"regex": "[0-9]+"}))
    yield case("chat/format-without-thinking", at.FORMS, chat(response_format=FORMAT, reasoning_effort="none"))
    yield case("chat/format-and-tools", at.FORMS, chat(response_format=FORMAT, tools=[ADD]))
    yield case(
        "chat/shapes-refused",
        at.FORMS,
        chat(response_format={"type": "xml"}),
        chat(response_format=FORMAT, structured_outputs={"regex": "a"}),
        chat(structured_outputs={}),
        chat(tool_choice="required"),
        chat(tools=[ADD], tool_choice={"type": "function", "function": {"name": "mul"}}),
        chat(tools=[ADD, ADD]),
        chat(response_format=FORMAT, presence_penalty=1),
    )


def _conversations() -> Iterator[Case]:
    turns = [
        {"role": "system", "content": "be short"},
        {"role": "developer", "content": [{"type": "text", "text": "and"}, {"type": "text", "text": "kind"}]},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello", "reasoning_content": "greet"},
        *QUESTION,
    ]
    yield case("chat/turns", at.THINKS, chat(messages=turns))
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    results = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "two"},
    ]
    yield case("chat/tool-results", at.THINKS, chat(messages=results, tools=[ADD], return_token_ids=True))
    begun = [*QUESTION, {"role": "assistant", "content": "it is"}]
    yield case(
        "chat/continued",
        at.lhrm(at.says(" 4")),
        chat(messages=begun, continue_final_message=True, add_generation_prompt=False, return_token_ids=True),
    )
    spelled = [{"role": "user", "content": "say </think><|im_end|> as text"}]
    yield case("chat/control-text-from-client", at.THINKS, chat(messages=spelled, return_token_ids=True))
    yield case("chat/template-arguments", at.THINKS, chat(chat_template_kwargs={"note": "x"}))


def _chat_errors() -> Iterator[Case]:
    yield case("errors/unknown-model", at.THINKS, chat("gpt-9"), chat("gpt-9", stream=True))
    yield case("errors/not-json", at.THINKS, post(CHAT, raw=b"{"), post(CHAT, raw=b""), post(CHAT, raw=b"\xff"))
    yield case("errors/wrong-type", at.THINKS, chat(temperature="hot"), chat(messages="hi"), chat(stream="yes"))
    yield case("errors/missing", at.THINKS, post(CHAT, {}), post(CHAT, {"model": "demo"}), chat(messages=[]))
    yield case("errors/unknown-field", at.THINKS, chat(temprature=1), post(CHAT, [1]))
    yield case(
        "errors/out-of-range", at.THINKS, chat(temperature=3), chat(top_p=0), chat(n=0), chat(max_tokens=0), chat(n=500)
    )
    yield case(
        "errors/contradictions",
        at.THINKS,
        chat(top_logprobs=3),
        chat(max_tokens=3, max_completion_tokens=4),
        chat(continue_final_message=True),
        chat(stream_options=USAGE),
        chat(messages=[{"role": "user"}]),
        chat(messages=[{"role": "robot", "content": "hi"}]),
        chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
    )
    long = [{"role": "user", "content": "word " * 3000}]
    yield case("errors/too-long", at.THINKS, chat(messages=long), chat(messages=long, stream=True))
    yield case("errors/bad-token", at.THINKS, chat(stop_token_ids=[99999]), chat(logit_bias={"x": 1}))
    yield case("errors/engine-dies", at.DIES, chat(), chat(stream=True))
    yield case("errors/engine-dead", at.IS_DEAD, chat(), chat(stream=True), message(), response())
    yield case("errors/engine-busy", at.IS_BUSY, chat(), chat(stream=True), message(stream=True))
    yield case("errors/no-path", at.THINKS, get("/v1/nothing"), get(CHAT), post("/v1/messages/nothing", {}))
    yield case("errors/keys", at.KEYED, chat(), chat("demo", "three"), get("/health"), get("/v1/models"), message())


def _families() -> Iterator[Case]:
    yield from both("families/qwen3", at.QWEN3, chat(thinking_budget=16))
    yield case("families/qwen3-no-think", at.QWEN3, chat(enable_thinking=False), chat(reasond={"mode": "auto"}))
    yield from both("families/qwen3-tools", at.QWEN3_CALLS, chat(tools=[ADD]))
    yield from both("families/deepseek-r1", at.R1, chat(thinking_budget=16))
    yield case("families/deepseek-r1-no-think", at.R1, chat(enable_thinking=False), chat(tools=[ADD]))
    yield from both("families/plain", at.PLAIN, chat())
    yield case("families/plain-refuses", at.PLAIN, chat(enable_thinking=True), chat(thinking_budget=0))
    yield from both("families/selfbudgeter", at.BUDGETER, chat())
    yield case(
        "families/selfbudgeter-in-time", at.BUDGETER_IN_TIME, chat(), chat(stream=True, stream_options=ALL_USAGE)
    )
    yield from both("families/selfbudgeter-prefill", at.BUDGETER, chat(thinking_budget=30))
    yield case("families/selfbudgeter-no-prefill", at.BUDGETER, chat(thinking_budget=12, reasond={"prefill": False}))
    yield from both("families/selfbudgeter-held", at.BUDGETER_HELD, chat())
    yield case("families/selfbudgeter-kind", at.BUDGETER_KIND, chat(thinking_budget=40), chat(max_tokens=40))
    yield case(
        "families/selfbudgeter-refuses",
        at.BUDGETER,
        chat(thinking_budget=0),
        chat(include_reasoning=False),
        chat(thinking_budget=5, min_tokens=9),
        chat(reasond={"cut": "graceful"}),
    )


def _completions() -> Iterator[Case]:
    yield from both("completions/text", at.RAW, raw())
    yield case("completions/usage", at.RAW, raw(stream=True, stream_options=ALL_USAGE))
    yield from both("completions/tags", at.RAW_TAGGED, raw(skip_special_tokens=False))
    yield from both("completions/prompts-and-choices", at.RAW_IN_TURN, raw(prompt=["a", "b"], n=2, seed=1, stop=". "))
    yield from both("completions/echo", at.RAW, raw(echo=True))
    yield from both("completions/logprobs", at.RAW, raw(logprobs=1))
    yield case("completions/token-ids", at.RAW, raw(return_token_ids=True), raw(prompt=[70, 71], return_token_ids=True))
    yield case("completions/default-length", at.lhrm(at.says("a b " * 20)), post(RAW, {"model": "demo", "prompt": "x"}))
    yield case("completions/engine-dies", at.RAW_DIES, raw(), raw(stream=True))
    yield case("completions/cap-native", at.NATIVE, raw(model="capped", prompt="hi<think>"))
    yield case(
        "completions/refused",
        at.RAW,
        raw(model="gpt-9"),
        raw(model="capped"),
        raw(prompt="word " * 3000),
        raw(best_of=3),
        raw(echo=True, logprobs=1),
        raw(prompt=[]),
        raw(prompt=5),
        raw(suffix="x"),
        post(RAW, {"model": "demo"}),
    )


def _responses() -> Iterator[Case]:
    tool = {"type": "function", **ADD["function"], "strict": True}
    yield from both("responses/text", at.THINKS, response())
    yield from both("responses/no-think", at.lhrm(at.writes()), response(reasoning={"effort": "none"}))
    yield from both("responses/tools", at.CALLS, response(tools=[tool]))
    yield case(
        "responses/tool-named", at.CALLS, response(tools=[tool], tool_choice={"type": "function", "name": "add"})
    )
    form = {"format": {"type": "json_schema", "name": "sum", "schema": SCHEMA, "strict": True}}
    yield case("responses/format", at.FORMS, response(text=form))
    yield from both(
        "responses/incomplete", at.RAMBLES, response(max_output_tokens=20, reasond={"budget": 6, "cut": "hard"})
    )
    yield case("responses/hidden", at.THINKS, response(reasoning={"exclude": True}))
    yield from both("responses/logprobs", at.THINKS, response(include=["message.output_text.logprobs"], top_logprobs=1))
    yield case(
        "responses/kept",
        at.THINKS,
        response(metadata={"a": "b"}, instructions="be short"),
        get("/v1/responses/{id}"),
        get("/v1/responses/{id}/input_items"),
        get("/v1/responses/{id}?stream=true"),
        post("/v1/responses/{id}/cancel"),
        Ask("DELETE", "/v1/responses/{id}"),
        get("/v1/responses/{id}"),
    )
    yield case("responses/kept-stream", at.THINKS, response(stream=True), get("/v1/responses/{id}"))
    yield case("responses/not-kept", at.THINKS, response(store=False), get("/v1/responses/{id}"))
    yield case(
        "responses/follows",
        at.THINKS,
        response(instructions="be short"),
        response(input="and 3+3?", previous_response_id="{id}"),
        response(input="again", previous_response_id="{id}"),
        response(previous_response_id="resp_none"),
    )
    yield case(
        "responses/background",
        at.TAKES_TIME,
        response(background=True),
        get("/v1/responses/{id}", wait=1.0),
        get("/v1/responses/{id}", wait=10.0),
    )
    yield case(
        "responses/background-cancelled",
        at.TAKES_TIME,
        response(background=True),
        post("/v1/responses/{id}/cancel", wait=0.5),
        get("/v1/responses/{id}", wait=1.0),
    )
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "add"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "two"},
    ]
    yield case(
        "responses/items",
        at.THINKS,
        response(input=items, tools=[tool]),
        get("/v1/responses/{id}/input_items"),
        post("/v1/responses/input_tokens", {"model": "demo", "input": items, "tools": [tool]}),
    )
    yield case("responses/engine-dies", at.DIES, response(), response(stream=True), get("/v1/responses/{id}"))
    yield case(
        "responses/refused",
        at.THINKS,
        response(model="gpt-9"),
        response(input=5),
        response(input=[]),
        response(input="word " * 3000),
        response(input="word " * 3000, stream=True),
        response(background=True, stream=True),
        response(background=True, store=False),
        response(temprature=1),
        response(reasoning={"effort": "extreme"}),
        get("/v1/responses/resp_none"),
    )


def _messages() -> Iterator[Case]:
    tool = {"name": "add", "description": "adds", "input_schema": PARAMETERS}
    yield from both("messages/text", at.THINKS, message())
    yield from both("messages/enabled", at.RAMBLES, message(thinking={"type": "enabled", "budget_tokens": 12}))
    yield from both("messages/disabled", at.THINKS, message(thinking={"type": "disabled"}))
    yield case("messages/adaptive", at.THINKS, message(thinking={"type": "adaptive"}, output_config={"effort": "low"}))
    yield from both("messages/hidden", at.SEALS, message(thinking={"type": "adaptive", "display": "omitted"}))
    yield from both("messages/tools", at.CALLS, message(tools=[tool]))
    yield case(
        "messages/tool-choices",
        at.CALLS_TWICE,
        message(tools=[tool], tool_choice={"type": "any"}),
        message(tools=[tool], tool_choice={"type": "tool", "name": "add"}),
        message(tools=[tool], tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
        message(tools=[tool], tool_choice={"type": "none"}),
    )
    history = [
        *QUESTION,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "let me"},
                {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "two"},
                {"type": "text", "text": "and?"},
            ],
        },
    ]
    yield case("messages/history", at.THINKS, message(messages=history, tools=[tool], system="be short"))
    yield case(
        "messages/format", at.FORMS, message(output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    )
    yield from both("messages/stop-sequence", at.THINKS, message(stop_sequences=["4"]))
    yield from both("messages/max-tokens", at.RAMBLES, message(max_tokens=20))
    yield case(
        "messages/count-tokens",
        at.THINKS,
        post("/v1/messages/count_tokens", {"model": "demo", "messages": QUESTION}),
        post(
            "/v1/messages/count_tokens",
            {"model": "demo", "messages": history, "system": [{"type": "text", "text": "be short"}], "tools": [tool]},
        ),
        post("/v1/messages/count_tokens", {"model": "demo", "messages": QUESTION, "thinking": {"type": "disabled"}}),
        post("/v1/messages/count_tokens", {"model": "gpt-9", "messages": QUESTION}),
    )
    yield case("messages/engine-dies", at.DIES, message(), message(stream=True))
    yield case(
        "messages/refused",
        at.THINKS,
        message(model="claude"),
        message(messages=[]),
        message(messages=[{"role": "user", "content": [{"type": "image"}]}]),
        message(temperature=9),
        message(tool_choice={"type": "any"}),
        message(output_config={"effort": "extreme"}),
        message(thinking={"type": "disabled", "budget_tokens": 9}),
        message(temprature=1),
        message(messages=[{"role": "user", "content": "word " * 3000}], stream=True),
        post(MESSAGES, {"model": "demo", "messages": QUESTION}),
        post(MESSAGES, raw=b"{"),
    )


PAIR = {"query": "Which is larger?", "replies": ["3", "8"]}
FOUR = {"query": "q", "replies": ["5", "9", "1", "7"]}


def reward(path: str, body: Any, **fields: Any) -> Ask:
    return post(f"/v1/rewards/{path}", {**body, **fields})


def _rewards() -> Iterator[Case]:
    yield from both("rewards/compare", at.JUDGES, reward("compare", PAIR, model="judge", votes=5))
    yield case("rewards/compare-reasoning", at.JUDGES, reward("compare", PAIR, include_reasoning=True))
    yield case("rewards/compare-undecided", at.JUDGE_UNDECIDED, reward("compare", PAIR, votes=3))
    yield case("rewards/compare-again", at.JUDGES, reward("compare", PAIR), reward("compare", PAIR, seed=5))
    turns = [{"role": "system", "content": "Be right."}, {"role": "user", "content": "Larger?"}]
    yield case("rewards/compare-conversation", at.JUDGES, reward("compare", {"messages": turns, "replies": ["3", "8"]}))
    yield case(
        "rewards/compare-budget",
        at.JUDGE_LONG,
        reward("compare", PAIR, thinking_token_budget=16, reasond={"cut": "hard"}),
    )
    yield from both("rewards/rank", at.JUDGES, reward("rank", FOUR))
    teams = {"query": "q", "replies": ["5", "9", "1", "9"], "teams": True}
    yield from both("rewards/rank-knockout", at.JUDGES, reward("rank", teams, method="knockout", seed=3))
    yield case("rewards/rank-elo", at.JUDGES, reward("rank", teams, rating="elo", elo_k=10, elo_start=0))
    yield from both("rewards/score-group", at.JUDGES, reward("score", {"query": "q", "replies": ["5", "9", "1"]}))
    two = {"query": "q", "replies": ["5", "9"]}
    yield from both("rewards/score-reference", at.JUDGES, reward("score", two, reference="9", votes=2))
    yield case("rewards/score-rival", at.JUDGES, reward("score", two, rival="7"))
    yield case("rewards/score-rubric", at.JUDGE_OF_RUBRICS, reward("score", two, rubric="Odd."))
    yield case("rewards/score-own-rubric", at.JUDGE_BY_RUBRIC, reward("score", {"query": "q", "replies": ["5"]}))
    yield case("rewards/score-undecided", at.JUDGE_UNDECIDED, reward("score", two), reward("score", two, reference="5"))
    yield case("rewards/score-nothing", at.JUDGES, reward("score", {"query": "q", "replies": []}))
    items = [
        PAIR,
        {"query": "q"},
        {"query": "word " * 500, "replies": ["1", "2"]},
        {"query": "q", "replies": ["9", "2"]},
        "nonsense",
        {"query": "q", "replies": ["1", "1"]},
    ]
    yield from both("rewards/items", at.JUDGE_SMALL, reward("compare", {"items": items}))
    several = [{"query": "q", "replies": [str(number), "5"]} for number in range(4)]
    yield case("rewards/items-scored", at.JUDGES, reward("score", {"items": several, "stream": True}))
    yield case("rewards/items-none", at.JUDGES, reward("rank", {"items": []}))
    yield case(
        "rewards/refused",
        at.JUDGES,
        reward("compare", {"replies": ["1", "2"]}),
        reward("compare", PAIR, messages=QUESTION),
        reward("compare", {**PAIR, "replies": ["1"]}),
        reward("rank", {**PAIR, "replies": ["1"] * 65}),
        reward("compare", PAIR, items=[]),
        reward("compare", PAIR, vote=3),
        reward("rank", PAIR, method="swiss"),
        reward("compare", PAIR, votes=0),
        reward("score", PAIR, reference="a", rubric="b"),
        reward("compare", PAIR, model="demo"),
        reward("compare", PAIR, reasond={"best_of": 2}),
        reward("score", {"query": "q", "replies": ["5"]}),
        reward("score", {"query": "q", "replies": ["5"]}, stream=True),
    )
    yield case(
        "rewards/cannot-judge", at.JUDGE_SHORT, reward("score", {"query": "q", "replies": ["5"]}, rubric="Be brief.")
    )
    yield case("rewards/no-judge", at.THINKS, reward("compare", PAIR), reward("compare", PAIR, model="demo"))


ASKED = "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n"


def output(text: str) -> dict[str, Any]:
    thought = {"type": "reasoning", "summary": []}
    return {"output": [thought, {"type": "message", "content": [{"type": "output_text", "text": text}]}]}


def _protocols() -> Iterator[Case]:
    group = [ASKED + f"<think>hm</think>{number}<|im_end|><|endoftext|>" for number in (4, 9, 1)]
    yield case(
        "protocols/openrlhf",
        at.JUDGES,
        post(
            "/get_reward", {"query": [ASKED + "<no_think>5</no_think><|im_end|>"], "prompts": [ASKED], "labels": ["5"]}
        ),
        post("/get_reward", {"query": group, "prompts": [ASKED] * 3, "labels": [None] * 3}),
        post("/get_reward", {"query": []}),
        post("/get_reward", {"query": ["plain text"]}),
        post("/get_reward", {"query": [f"{ASKED}{number}" for number in range(65)]}),
    )
    yield case(
        "protocols/slime",
        at.JUDGES,
        post("/reward", {"prompt": ASKED, "response": "5<|im_end|>", "label": "5"}),
        post("/reward?model=judge&votes=3&seed=7", {"prompt": QUESTION, "response": "5", "label": {"answer": [5]}}),
        post("/reward", {"prompt": ASKED, "response": "5"}),
        post("/reward?votes=x", {"prompt": "q", "response": "r"}),
        post("/reward?speed=9", {"prompt": "q", "response": "r"}),
        post("/reward?model=none", {"prompt": "q", "response": "r"}),
        post("/reward", raw=b"{"),
    )
    yield case(
        "protocols/verl",
        at.JUDGE_BY_RUBRIC,
        post("/classify", {"model": "Qwen/any", "input": f"{ASKED}5<|im_end|>\n", "use_activation": False}),
        post("/classify", {"input": [f"{ASKED}5<|im_end|>\n", f"{ASKED}6<|im_end|>\n"], "reference": "5"}),
        post("/classify", {"input": []}),
        post("/classify", {"input": "no marks", "reference": "5"}),
    )
    yield case(
        "protocols/vllm-score",
        at.JUDGES,
        post("/score", {"model": "judge", "queries": "What is 2 + 3?", "documents": ["5"], "reference": "5"}),
        post("/v1/score", {"text_1": "q", "text_2": ["4", "9", "1"]}),
        post("/score", {"queries": ["q", "r"], "documents": ["1", "2"]}),
        post("/score", {"queries": ["q", "r"], "documents": ["a", "b", "c"]}),
        post("/score", {"model": "gpt-9", "queries": "q", "documents": ["a", "b"]}),
    )
    documents = {"query": "q", "documents": ["4", {"text": "9"}, "1"], "top_n": 2}
    yield case(
        "protocols/rerank",
        at.JUDGES,
        post("/rerank", documents),
        post("/v1/rerank", {**documents, "return_documents": False}),
        post("/v2/rerank", {"model": "judge", "query": "What is 2 + 3?", "documents": ["5"], "reference": "5"}),
        post("/rerank", {"query": "q", "documents": [5]}),
    )
    body = {"responses_create_params": {"input": "q", "temperature": 1.0}, "response": {**output("5"), "id": "r1"}}
    yield case(
        "protocols/nemo-gym-verify",
        at.JUDGES,
        post("/seed_session", {}),
        post("/verify", {**body, "verifier_metadata": {"reference": "5"}, "agent_ref": {"name": "a"}}),
        post("/verify", {**body, "expected_answer": "6"}),
        post("/verify", body),
        post("/verify", raw=b'{"responses_create_params":{"input":"q"},"response":{"output":[]},"score":NaN}'),
    )
    history = [{"role": "user", "content": [{"type": "input_text", "text": "Which?"}]}]
    yield case(
        "protocols/nemo-gym-compare",
        at.JUDGES,
        post(
            "/compare?votes=3",
            {"conversation_history": history, "response_objs": [output(n) for n in "491"], "principle": "Big"},
        ),
        post("/compare", {"conversation_history": [], "response_objs": []}),
    )
    yield case(
        "protocols/no-verdict",
        at.JUDGE_UNDECIDED,
        post("/reward", {"prompt": "q", "response": "5", "label": "5"}),
        post("/score", {"queries": "q", "documents": ["4", "9"]}),
        post("/compare", {"conversation_history": [], "response_objs": [output("4"), output("9")]}),
    )
    sample = {"prompt": ASKED, "response": "5<|im_end|>", "label": "5"}
    yield case(
        "protocols/keys",
        at.JUDGE_KEYED,
        post("/reward", sample),
        post("/reward", sample, headers={"authorization": "Basic a2V5OnJzay10cmFpbmVy"}),
        post("/reward", sample, headers={"authorization": "Basic %%%"}),
        post("/reward", sample, headers={"authorization": "Bearer rsk-trainer"}),
    )


REWARDBENCH = (
    "[User Question]\nWhich is larger?\n\n[The Start of Assistant A's Answer]\n3\n[The End of Assistant A's Answer]"
    "\n\n[The Start of Assistant B's Answer]\n8\n[The End of Assistant B's Answer]"
)
VERIFIER = (
    "Task:\n```\nWhat is 2 + 3?\n```\n\nReference answer:\n```\n5\n```\n\nResponse:\n```\n5\n```\n\n"
    'Respond either "CORRECT" or "INCORRECT" only.'
)


def _judge_chat() -> Iterator[Case]:
    pair = [{"role": "system", "content": "Be impartial."}, {"role": "user", "content": REWARDBENCH}]
    asked = chat("judge", messages=pair, temperature=0, max_tokens=1024)
    yield from both("judge-chat/pair", at.JUDGES, asked)
    yield case("judge-chat/no-seed-no-limit", at.JUDGES, chat("judge", messages=pair))
    yield case(
        "judge-chat/reference", at.JUDGES, chat("judge", messages=[{"role": "user", "content": VERIFIER}], seed=1)
    )
    yield case("judge-chat/undecided", at.JUDGE_UNDECIDED, chat("judge", messages=pair, seed=1))
    yield case("judge-chat/brackets", at.JUDGE_BRACKETS, chat("judge", messages=pair, seed=1))
    yield case("judge-chat/talk", at.JUDGE_TALKS, chat("judge"))
    yield case("judge-chat/as-message", at.JUDGES, message(model="judge", messages=pair[1:], max_tokens=1024, seed=1))


def _best_of() -> Iterator[Case]:
    yield case("best-of/asked", at.BEST_OF, chat("solver", reasond={"best_of": 4}, seed=10))
    yield from both("best-of/by-default", at.BEST_OF, chat("best"))
    yield case("best-of/declined", at.BEST_OF, chat("best", reasond={"best_of": 1}))
    yield case("best-of/choices", at.BEST_OF, chat("solver", reasond={"best_of": 2}, n=2, seed=0))
    yield case("best-of/by-lot", at.BEST_BY_LOT, chat("solver", reasond={"best_of": 2}))
    yield case("best-of/without-answers", at.BEST_WITHOUT_ANSWERS, chat("best"))
    yield case("best-of/engine-dies", at.BEST_DIES, chat("best"), chat("best", stream=True))
    yield case("best-of/response", at.BEST_OF, response(model="best"))
    yield case("best-of/message", at.BEST_OF, message(model="best", stream=True))
    refused = [("alone", 2), ("judge", 2), ("solver", 0), ("solver", 65), ("solver", "4"), ("solver", True)]
    yield case("best-of/refused", at.BEST_OF, *(chat(model, reasond={"best_of": wanted}) for model, wanted in refused))


def _speculative() -> Iterator[Case]:
    yield from both("speculative/takeover", at.TAKEN_OVER, chat("both"))
    yield case("speculative/token-ids", at.TAKEN_OVER, chat("both", return_token_ids=True, logprobs=True))
    yield case("speculative/in-time", at.TAKEN_OVER_IN_TIME, chat("both", stream=True, stream_options=ALL_USAGE))
    yield from both("speculative/other-vocabulary", at.OTHER_VOCABULARY, chat("both"))
    yield from both("speculative/all-kinds", at.ALL_TAKEOVERS, chat("both"))
    yield case("speculative/not-reasoning", at.NOT_REASONING, chat("both"))
    yield from both("speculative/accept", at.ACCEPTED, chat("both"))
    yield case("speculative/format", at.TAKEN_OVER_FORM, chat("both", response_format=FORMAT))
    yield case("speculative/tools", at.TAKEN_OVER_CALL, chat("both", tools=[ADD]))
    yield case("speculative/budget", at.TAKEN_OVER, chat("both", thinking_budget=6))
    yield case("speculative/shorter", at.TAKEN_OVER, chat("both", reasond={"speculative": {"takeover_tokens": 2}}))
    yield case("speculative/unwanted", at.TAKEN_OVER, chat("both", reasond={"speculative": {"target": False}}))
    yield case("speculative/no-think", at.DIRECT_SMALL, chat("both", enable_thinking=False))
    yield case("speculative/choices", at.ALL_TAKEOVERS, chat("both", n=2, seed=1))
    yield case("speculative/response", at.TAKEN_OVER, response(model="both", stream=True))
    yield case("speculative/message", at.TAKEN_OVER, message(model="both"))
    yield case(
        "speculative/refused",
        at.OTHER_VOCABULARY,
        chat("both", reasond={"speculative": {"n1": 2}}),
        chat("both", presence_penalty=1),
        chat("both", logprobs=True),
        chat("both", reasond={"speculative": {"target": False, "takeover_tokens": 2}}),
    )
    yield case(
        "speculative/target-down",
        at.TAKEN_OVER,
        get("/ready"),
        get("/v1/models/both"),
        Ask("CLOSE", "large"),
        get("/ready"),
        chat("both"),
        get("/v1/models/both"),
        get("/metrics", lines="^reasond:(takeovers|target|route_degraded|model_tokens)[a-z_]*[{ ]"),
    )
    yield case(
        "speculative/fails-with-target",
        at.FAILS_WITH_TARGET,
        Ask("CLOSE", "large"),
        get("/ready"),
        chat("both"),
        chat("both", stream=True),
    )


def _running() -> Iterator[Case]:
    slow = {"x-request-id": "run-1"}
    for stream in (False, True):
        body = {"model": "kind", "messages": QUESTION, "thinking_budget": -1, "stream": stream}
        begun = post(CHAT, body, headers=slow, meanwhile=True)
        end = "-stream" if stream else ""
        yield case(f"running/answer{end}", at.TAKES_TIME, begun, post("/v1/reasoning/run-1/answer", wait=0.5))
        yield case(f"running/cancel{end}", at.TAKES_TIME, begun, post("/v1/reasoning/chatcmpl-run-1/cancel", wait=0.5))
    early = post(CHAT, {"model": "kind", "messages": QUESTION}, headers=slow, meanwhile=True)
    yield case(
        "running/cancel-before-first-token", at.TAKES_TIME, early, post("/v1/reasoning/run-1/cancel", wait=0.0625)
    )
    penalised = post(
        CHAT, {"model": "demo", "messages": QUESTION, "frequency_penalty": 0.5}, headers=slow, meanwhile=True
    )
    yield case("running/cannot-answer", at.TAKES_TIME, penalised, post("/v1/reasoning/run-1/answer", wait=0.5))
    yield case("running/unknown", at.TAKES_TIME, post("/v1/reasoning/run-4/answer"), post("/v1/reasoning/x/cancel"))
    first = message(stream=True)
    named = Ask(first.method, first.path, first.body, slow, meanwhile=True)
    yield case("running/message-cancelled", at.TAKES_TIME, named, post("/v1/reasoning/run-1/cancel", wait=0.5))


def _asked() -> Iterator[Case]:
    """What the engine is asked, told by a model that says it."""
    sampling = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "repetition_penalty": 1.1,
        "seed": 5,
        "min_tokens": 2,
        "max_tokens": 3000,
        "logit_bias": {"70": 1.5},
        "bad_words": ["bad"],
        "stop_token_ids": [5],
        "ignore_eos": False,
        "priority": 3,
        "cache_salt": "salt",
    }
    tool = {"type": "function", **ADD["function"]}
    called = {"name": "add", "description": "adds", "input_schema": PARAMETERS}
    system = [{"role": "system", "content": "be short"}, *QUESTION]
    form = {"type": "json_schema", "name": "sum", "schema": SCHEMA}
    for name, fields in {
        "nothing": {},
        "sampling": sampling,
        "defaults-of-route": {"model": "direct"},
        "budget": {"thinking_budget": 30, "max_tokens": 900},
        "system": {"messages": system},
        "tools": {"tools": [ADD, SUB]},
        "tools-required": {"tools": [ADD, SUB], "tool_choice": "required"},
        "tools-named": {"tools": [ADD, SUB], "tool_choice": NAMED},
        "tools-one-at-a-time": {"tools": [ADD], "parallel_tool_calls": False},
        "tools-none": {"tools": [ADD], "tool_choice": "none"},
        "tools-and-format": {"tools": [ADD], "response_format": FORMAT},
        "format": {"response_format": FORMAT},
        "format-object": {"response_format": {"type": "json_object"}},
        "choice": {"structured_outputs": {"choice": ["yes", "no"]}},
        "no-think-format": {"response_format": FORMAT, "enable_thinking": False},
    }.items():
        yield case(f"asked/{name}", at.MIRRORS, chat(**fields))
    yield case(
        "asked/response",
        at.MIRRORS,
        response(
            instructions="be short", tools=[tool], tool_choice="required", temperature=0.3, max_output_tokens=4000
        ),
        response(text={"format": form}),
    )
    yield case(
        "asked/message",
        at.MIRRORS,
        message(system="be short", tools=[called], tool_choice={"type": "any"}, top_k=3, max_tokens=4000),
        message(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}, stop_sequences=["$"]),
    )
    yield case("asked/completion", at.MIRRORS, raw(**{**sampling, "max_tokens": 400}))


def _operations() -> Iterator[Case]:
    yield case("operations/models", at.THINKS, get("/v1/models"), get("/v1/models/demo"), get("/v1/models/gpt-9"))
    yield case("operations/models-budgeter", at.BUDGETER_HELD, get("/v1/models"))
    yield case("operations/models-speculative", at.ACCEPTED, get("/v1/models"))
    yield case("operations/models-judge", at.BEST_OF, get("/v1/models"))
    yield case("operations/health", at.THINKS, get("/health"), get("/ready"), get("/version"))
    yield case("operations/engine-down", at.THINKS, Ask("CLOSE", "demo"), get("/ready"), get("/health"), chat())
    yield case("operations/openapi", at.THINKS, get("/openapi.json"))
    yield case("operations/request-id", at.THINKS, get("/health", headers={"x-request-id": "mine"}))
    yield case("operations/request-id-refused", at.THINKS, get("/health", headers={"x-request-id": "not one"}))
    yield case(
        "operations/metrics",
        at.TAKES_TIME,
        chat("kind"),
        chat("capped", thinking_budget=12),
        raw(),
        chat("gpt-9"),
        get("/metrics", lines="^reasond:(?!asyncio_tasks|.*_created)"),
    )
    yield case(
        "operations/metrics-judge",
        at.BEST_OF,
        chat("best"),
        reward("compare", PAIR),
        get("/metrics", lines="^reasond:judge"),
    )


CASES: tuple[Case, ...] = (
    *_modes(),
    *_budgets(),
    *_controls(),
    *_sampling(),
    *_shapes(),
    *_conversations(),
    *_chat_errors(),
    *_families(),
    *_completions(),
    *_responses(),
    *_messages(),
    *_rewards(),
    *_protocols(),
    *_judge_chat(),
    *_best_of(),
    *_speculative(),
    *_running(),
    *_asked(),
    *_operations(),
)
