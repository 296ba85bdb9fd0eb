"""The servers that the cases ask, and the scripts of their engines."""

from dataclasses import fields
from typing import Any

from tests.recorded.project import (
    OPENS_THINKING,
    EngineBusy,
    EngineDead,
    Reader,
    ScriptedReply,
    Setup,
    Writer,
    boxed,
    larger_number,
    said,
    same_text,
)

THOUGHT = "add 2 and 2. so 4"
ANSWER = "it is 4. yes"
LONG = "1 and 1 is 2, " * 20
ARGUMENTS = '{"a": 1, "b": "} </tool_call> \\"{"}'
CALL = f'<tool_call>\n{{"name": "add", "arguments": {ARGUMENTS}}}\n</tool_call>'


def engine(name: str) -> str:
    return f'[engines.{name}]\nkind = "scripted"\nmodel = "demo/tokenizer"\n'


def writes(answer: str = ANSWER, thought: str = THOUGHT, **options: Any) -> Writer:
    """A model that goes on where the prompt ends: it thinks unless it has thought, then answers."""

    def of(tokenizer: Any) -> Any:
        def script(prompt: Any, sampling: Any) -> str:
            reply = said(tokenizer, prompt.token_ids)
            if "</think>" in reply or "<no_think>" in reply:
                return answer
            return ("" if "<think>" in reply else "<think>") + f"{thought}</think>{answer}"

        return script

    return Writer(of, options)


def says(*lines: Any, **options: Any) -> Writer:
    """A model that says these lines in turn, whatever it is asked."""
    return Writer(lambda tokenizer: list(lines), options)


def seeded() -> Writer:
    """A model whose reply is told apart by its seed."""
    return Writer(lambda tokenizer: lambda prompt, sampling: f"<think>by {sampling.seed}</think>it is {sampling.seed}")


def mirrors() -> Writer:
    """A model that answers with what it was asked: the prompt, and all that is not left to its engine."""

    def of(tokenizer: Any) -> Any:
        def script(prompt: Any, sampling: Any) -> str:
            reply = said(tokenizer, prompt.token_ids)
            told = _asked(prompt, sampling, tokenizer.decode(prompt.token_ids, skip_special_tokens=False))
            if "</think>" in reply or "<no_think>" in reply:
                return told
            return ("" if "<think>" in reply else "<think>") + f"hm</think>{told}"

        return script

    return Writer(of, {"context_length": 16384})


def _asked(prompt: Any, sampling: Any, text: str) -> str:
    """Without the brackets of tags, which would be read as such."""
    told = [f"PROMPT {text}"]
    for thing, default in ((prompt, type(prompt)(())), (sampling, type(sampling)())):
        for name in sorted(field.name for field in fields(thing)):
            value = getattr(thing, name)
            if name == "grammar" and value is not None:
                told.append(f"GRAMMAR {value.kind} {value.value}")
            elif name != "token_ids" and value != getattr(default, name):
                told.append(f"{name}={value!r}")
    return "\n".join(told).replace("<", "‹").replace(">", "›")


def unsure(think: float, direct: float) -> Writer:
    """A model whose first token is as likely as this."""

    def of(tokenizer: Any) -> Any:
        known = {tokenizer.control_id("<think>"): think, tokenizer.control_id("<no_think>"): direct}

        def script(prompt: Any, sampling: Any) -> ScriptedReply:
            reply = said(tokenizer, prompt.token_ids)
            line = f"{THOUGHT}</think>{ANSWER}" if "<think>" in reply else f"{ANSWER}</no_think>"
            return ScriptedReply(line, logprobs=known)

        return script

    return Writer(of)


LHRM = (
    engine("demo")
    + """
[routes.demo]
engine = "demo"
family = "lhrm"
budgets.reserve = 0
description = "thinks as it likes"

[routes.careful]
engine = "demo"
family = "lhrm"
budgets.reserve = 0
think_threshold = 0.5

[routes.capped]
engine = "demo"
family = "lhrm"
mode = "think"
[routes.capped.budgets]
reserve = 0
cap = 60
efforts = { low = 7 }
cut = "hard"

[routes.kind]
engine = "demo"
family = "lhrm"
mode = "think"
budgets = { default = 40, reserve = 20, tolerance = 8 }

[routes.direct]
engine = "demo"
family = "lhrm"
budgets.reserve = 0
mode = "no_think"
sampling = { max_tokens = 30, temperature = 0.5 }

[routes.plain]
engine = "demo"
family = "plain"
"""
)
KEYS = "[keys.environment-1]\nbudget = 30\nbudget_cap = 40\n"


def lhrm(writer: Writer, more: str = "", keys: str = "") -> Setup:
    return Setup(LHRM + more, {"demo": writer}, keys)


THINKS = lhrm(writes())
SEALS = lhrm(writes(), more=f'[server]\nseal_key = "{"ab" * 32}"\n')
DIRECTLY = lhrm(says(f"<no_think>{ANSWER}</no_think>"))
RAMBLES = lhrm(writes(thought=LONG))
TAKES_TIME = lhrm(writes(thought=LONG, first_token_delay=0.125))
CALLS = lhrm(writes(f"so: {CALL}"))
CALLS_TWICE = lhrm(writes(f"{CALL}\n{CALL}"))
RAMBLES_AND_CALLS = lhrm(writes(CALL, thought=LONG))
FORMS = lhrm(writes('{"sum": 2}'))
MIRRORS = lhrm(mirrors())
SEEDED = lhrm(seeded())
KEYED = lhrm(writes(thought=LONG), KEYS, "one,two")
DIES = lhrm(says(ScriptedReply("<think>so far", error=EngineDead("gone"))))
IS_DEAD = lhrm(says(ScriptedReply("", error=EngineDead("gone"))))
IS_BUSY = lhrm(says(ScriptedReply("", error=EngineBusy("full"))))
CACHED = lhrm(says(ScriptedReply(f"<think>{THOUGHT}</think>{ANSWER}", cached_tokens=3)))
NATIVE = lhrm(writes(thought=LONG, thinking=("<think>", "</think>")))
RAW = lhrm(says("one two. three"))
RAW_IN_TURN = lhrm(says("one. two", "three", "four. five", "six"))
RAW_TAGGED = lhrm(says("<think>a</think>b"))
RAW_DIES = lhrm(says(ScriptedReply("so far", error=EngineDead("gone"))))

QWEN3 = Setup(
    engine("demo") + '[routes.demo]\nengine = "demo"\nfamily = "qwen3"\nbudgets.reserve = 0\n',
    {"demo": writes(thought=LONG)},
)
QWEN3_CALLS = Setup(QWEN3.config, {"demo": writes(CALL)})
R1 = Setup(
    engine("demo") + '[routes.demo]\nengine = "demo"\nfamily = "deepseek_r1"\nbudgets.reserve = 0\n',
    {"demo": Writer(writes(thought=LONG).script, template=OPENS_THINKING)},
)
PLAIN = Setup(
    engine("demo") + '[routes.demo]\nengine = "demo"\nfamily = "plain"\n',
    {"demo": says("it says <think> and 4")},
)


def _budgeter(tokenizer: Any) -> Any:
    def script(prompt: Any, sampling: Any) -> str:
        reply = said(tokenizer, prompt.token_ids)
        if "<solution>" in reply:
            return "8 and " * 60 + "</solution>"
        return "<budget>50</budget><solution>" + "8 and " * 10 + "</solution>"

    return script


def budgeter(budgets: str = "", **options: Any) -> Setup:
    route = f'[routes.demo]\nengine = "demo"\nfamily = "selfbudgeter"\n{budgets}'
    return Setup(engine("demo") + route, {"demo": Writer(_budgeter, options)})


BUDGETER = budgeter()
BUDGETER_IN_TIME = budgeter(first_token_delay=0.125)
BUDGETER_HELD = budgeter("budgets = { hold_declared = true, cap = 20 }")
BUDGETER_KIND = budgeter("budgets = { reserve = 10 }")


def _repeats(line: str) -> Any:
    return lambda prompt, sampling: line


SMALL = "One.\n\nWait, no. And on.\n\nSo.</think>two"
SPECULATIVE = (
    engine("small")
    + engine("large")
    + """
[routes.both]
controller = "speculative"
engine = "small"
family = "lhrm"
budgets.reserve = 0
mode = "think"
[routes.both.speculative]
target = "large"
takeover_tokens = 3
"""
)


def speculative(small: Any, large: Any, more: str = "", vocabulary: str = "", **options: Any) -> Setup:
    """Two models at one reply. Texts are said in turn by the small one, and always by the large one."""
    writers = {
        "small": Writer(small if callable(small) else lambda tokenizer: small, options),
        "large": Writer(large if callable(large) else lambda tokenizer: _repeats(large), options, vocabulary),
    }
    return Setup(SPECULATIVE + more, writers)


def _small(answer: str) -> Any:
    def of(tokenizer: Any) -> Any:
        def script(prompt: Any, sampling: Any) -> str:
            reply = said(tokenizer, prompt.token_ids)
            if "</think>" in reply:
                return answer
            return f" on</think>{answer}" if "Hold" in reply else SMALL

        return script

    return of


def _steps(tokenizer: Any) -> Any:
    """A small model that thinks in steps, one of them bad."""
    steps = ["Good one.\n\n", "A bad one.\n\n", "Fine.\n\n"]

    def script(prompt: Any, sampling: Any) -> str:
        reply = said(tokenizer, prompt.token_ids)
        return "".join(steps[reply.count("\n\n") :]) + "</think>done"

    return script


def _scorer(tokenizer: Any) -> Any:
    def script(prompt: Any, sampling: Any) -> str:
        reply = said(tokenizer, prompt.token_ids)
        if "quality score" not in reply:
            return "A better one.\n\nand more"
        step = reply.partition("\n\nEvaluate")[0].rstrip("\n").rpartition("\n\n")[2]
        return "2" if "bad" in step else "9"

    return script


def _sure(tokenizer: Any) -> Any:
    """A small model that affirms, verifies and doubts, again and again."""

    def script(prompt: Any, sampling: Any) -> str:
        reply = said(tokenizer, prompt.token_ids)
        told = reply.count("\n\n")
        lines = ["Yes, that is right.\n\n", "Let me check: 2*3=6.\n\n", "Wait, no.\n\n", "Hold on, no.\n\n", "So.\n\n"]
        return "".join(lines[told:]) + "</think>6"

    return script


TAKEN_OVER = speculative([SMALL, " on</think>two"], "Hold on, it")
TAKEN_OVER_IN_TIME = speculative([SMALL, " on</think>two"], "Hold on, it", first_token_delay=0.125)
TAKEN_OVER_FORM = speculative(_small('{"sum": 2}'), "Hold on, it")
TAKEN_OVER_CALL = speculative(_small(CALL), "Hold on, it")
OTHER_VOCABULARY = speculative([SMALL, " on</think>two"], "Hold on, it", vocabulary="bytes")
ALL_TAKEOVERS = speculative(
    _sure,
    "the target says this at length. ",
    "verification_tokens = 5\nexcess_tokens = 6\nexcess_after = 2\n",
)
NOT_REASONING = speculative(_sure, "the target says this. ", "small_reasons = false\nopening_tokens = 4\n")
ACCEPTED = speculative(_steps, _scorer, 'method = "accept"\nstep_tokens = 12\n')
FAILS_WITH_TARGET = speculative([SMALL], "5", 'on_failure = "fail"\n')
DIRECT_SMALL = speculative(["two</no_think>"], "5")

JUDGE = """
[routes.judge]
engine = "judge"
family = "lhrm"
budgets.reserve = 0
controller = "judge"
"""


def judge(
    rule: Any = larger_number, single: Any = same_text, settings: str = "", keys: str = "", **options: Any
) -> Setup:
    """A judge by a rule."""
    writer = Writer(lambda tokenizer: Reader(tokenizer, rule, single), options)
    return Setup(engine("judge") + JUDGE + settings, {"judge": writer}, keys)


JUDGES = judge()
JUDGE_UNDECIDED = judge(lambda first, second: boxed("?"), lambda reply, against: boxed("?"))
JUDGE_LONG = judge(lambda first, second: f"<think>{'hm ' * 50}</think>\\boxed{{Assistant 1}}")
JUDGE_BY_RUBRIC = judge(single=lambda reply, against: boxed("Pass"), settings='judge = { rubric = "Be right." }')
JUDGE_OF_RUBRICS = judge(single=lambda reply, against: boxed("Pass" if reply == "5" else "Fail"))
JUDGE_SHORT = judge(settings='judge = { family = "rrm_short" }')
JUDGE_BRACKETS = judge(lambda first, second: "<no_think>[[A]]</no_think>", settings='judge = { family = "brackets" }')
JUDGE_TALKS = judge(lambda first, second: "<no_think>Hello.</no_think>")
JUDGE_SMALL = judge(context_length=400)
JUDGE_KEYED = judge(settings='judge = { rubric = "Be right." }', keys="rsk-trainer")

BEST = """
[routes.solver]
engine = "policy"
family = "lhrm"
budgets.reserve = 0
judged_by = "judge"

[routes.best]
engine = "policy"
family = "lhrm"
budgets.reserve = 0
judged_by = "judge"
best_of = 4

[routes.alone]
engine = "policy"
family = "lhrm"
budgets.reserve = 0
"""


def best_of(*numbers: Any, rule: Any = larger_number) -> Setup:
    """A model that says these numbers, and a judge of them."""
    lines = [line if isinstance(line, ScriptedReply) else f"<think>hm {line}</think>{line}" for line in numbers]
    judging = judge(rule)
    return Setup(judging.config + engine("policy") + BEST, {**judging.writers, "policy": says(*lines)})


BEST_OF = best_of("31", "75", "12", "50")
BEST_BY_LOT = best_of("1", "2", rule=lambda first, second: boxed("?"))
BEST_WITHOUT_ANSWERS = best_of(ScriptedReply("<think>"), "5", ScriptedReply("<think>"), "7")
BEST_DIES = best_of("1", ScriptedReply("<think>", error=EngineDead("gone")))
