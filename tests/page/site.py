"""A server on the loopback with every kind of route that the page shows, over scripted engines."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

from models.engines.base import EngineDead, Prompt, Sampling
from models.engines.scripted import Line, Script, ScriptedEngine, ScriptedReply
from models.text.tokenizer import HubTokenizer
from server.app import create_app
from server.config.load import parse_config
from server.serve import build_server
from tests.controllers.stories import MARK, said
from tests.judging import Reader, larger_number
from tests.processes import ROOT
from tests.wire.served import _serve

ENGINES = ("model", "asked", "small", "target", "judge")
SETTINGS = """
[server]
port = 0
drain_seconds = 0.5

[routes.hybrid]
engine = "model"
family = "lhrm"
description = "A model whose first token decides whether to think."
budgets = { reserve = 4, efforts = { minimal = 8, low = 16, medium = 48, high = 96, xhigh = 128, max = 256 } }

[routes.threshold]
engine = "model"
family = "lhrm"
think_threshold = 0.5
description = "Thinks where the model's probability of thinking is at least one half."

[routes.qwen3]
engine = "model"
family = "qwen3"
description = "A model that is told whether to think."
budgets = { default = 400, cap = 12000 }

[routes.asked]
engine = "asked"
family = "qwen3"
mode = "auto"
auto = { decider = "ask" }
description = "The model is asked whether working it out would change its answer."

[routes.declares]
engine = "model"
family = "selfbudgeter"
description = "A model that gives itself a budget for the whole reply."
budgets = { reserve = 16 }

[routes.plain]
engine = "model"
family = "plain"
description = "A model that does not think."

[routes.guided]
controller = "speculative"
engine = "small"
family = "lhrm"
mode = "think"
description = "A small model, with a large one where its thought turns."
[routes.guided.speculative]
target = "target"
takeover_tokens = 19

[routes.target]
engine = "target"
family = "lhrm"
mode = "think"
description = "The large model alone."

[routes.judge]
engine = "judge"
family = "lhrm"
controller = "judge"
description = "Judges two replies."
judge = { votes = 3 }

[routes.best]
engine = "model"
family = "lhrm"
judged_by = "judge"
best_of = 4
description = "Four replies are drawn, and the judge's favourite is the answer."
""" + "".join(f'[engines.{name}]\nkind = "scripted"\nmodel = "demo/tokenizer"\n' for name in ENGINES)

HOSTILE = (
    '<script>window.pwned = 1</script> <img src=x onerror="window.pwned = 2"> <svg onload="window.pwned = 3"></svg>\n\n'
    "[a link](javascript:window.pwned=4) and ![a picture](http://foreign.example/x.png)\n\n"
    '<a href="javascript:window.pwned=5">go</a> <iframe src="http://foreign.example/"></iframe>\n\n'
    "<style>body { display: none }</style> <form action='http://foreign.example/'><input name=x></form>\n\n"
    '$\\href{javascript:window.pwned=6}{x}$ and <span data-tex="\\href{javascript:window.pwned=7}{y}">y</span>'
)
MARKDOWN = """A crate holds **31** good apples, so 12 crates hold

$$12 \\times (36 - 5) = 12 \\times 31 = 372.$$

| crates | good apples |
|---|---|
| 1 | 31 |
| 12 | 372 |

- The rule is $g = n\\,(a - b)$ with $\\frac{g}{n} = 31$.
- In Python: `12 * (36 - 5)`.

```python
print(12 * (36 - 5))  # 372
```
"""
APPLES = """A crate holds 36 apples and 5 of them are bad.

So a crate has 36 - 5 = 31 good apples.

Wait, are the 5 bad ones in every crate? The question says a crate, so yes.

Then 12 crates have 12 * 31 good apples. 12 * 30 = 360, and 12 more make 372.

So the answer is 372."""
LESSON = "Every crate has 31 good ones, then. That is 12 times 31."


@dataclass(frozen=True, slots=True)
class Story:
    """What a model thinks and answers to a question. `probability` is that of thinking."""

    thought: str
    answer: str
    thinks: bool = True
    probability: float = 0.9
    error: Exception | None = None


GREETING = Story(
    "Someone says hello.", "Hello! I am a model that thinks when it has to.", thinks=False, probability=0.08
)
MODES = (("", "A"), ("no_", "B"))  # what a model says of itself, and the letters that a decider offers it
STORIES: Mapping[str, Story] = {
    "crate": Story(APPLES, MARKDOWN, probability=0.93),
    "hello": GREETING,
    "hostile": Story("It wants <script>alert(1)</script> of me.", HOSTILE),
    "breaks": Story("This goes well until it", "", error=EngineDead("gone")),
    "long": Story(
        " ".join(f"step {i}: {i} and {i} make {2 * i}.{chr(10) if i % 9 == 0 else ''}" for i in range(900)), "Done."
    ),
    "number": Story("A large one.", "1"),
}


def goes_on(tokenizer: HubTokenizer, stories: Mapping[str, Story] = STORIES) -> Script:
    """A model of any family: it goes on where its prompt ends, with the story whose name is in the last question."""
    drawn = iter(range(10**9))
    (thinking, direct) = ([tokenizer.control_id(f"<{tag}think>"), *tokenizer.encode(letter)] for tag, letter in MODES)

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        asked, _, reply = tokenizer.decode(prompt.token_ids, skip_special_tokens=False).rpartition(MARK)
        question = asked.rpartition("user\n")[2].lower()
        story = next((story for name, story in stories.items() if name in question), GREETING)
        if "number" in question:
            draw = next(drawn)  # some are drawn sooner than others
            story = Story("A large one. " * (1 + 8 * (draw % 4)), str(10 + 37 * draw % 90))
        text = _rest(reply, story)
        yes, no = math.log(story.probability), math.log(1 - story.probability)
        return ScriptedReply(text, {**dict.fromkeys(thinking, yes), **dict.fromkeys(direct, no)}, story.error)

    return script


def _rest(reply: str, story: Story) -> str:
    if "<budget>" in reply or "<solution>" in reply:
        return f"{story.thought}\n\n{story.answer}</solution>"
    if "</think>" in reply or "<no_think>" in reply:
        return story.answer + ("</no_think>" if "<no_think>" in reply else "")
    if "<think>" in reply:
        begun = reply.partition("<think>")[2].lstrip("\n")
        left = story.thought[len(begun) :] if story.thought.startswith(begun) else "\n\nSo the answer is 372."
        return left if story.error else f"{left}</think>{story.answer}"
    if story.thinks:
        return f"<think>{story.thought}" + ("" if story.error else f"</think>{story.answer}")
    return f"<no_think>{story.answer}</no_think>"


def teaches(tokenizer: HubTokenizer, stories: Mapping[str, Story]) -> Script:
    """The target: it says its lesson, then the answer about crates."""

    def script(prompt: Prompt, sampling: Sampling) -> Line:
        reply = said(tokenizer, prompt.token_ids)
        answer = stories["crate"].answer
        return f"{LESSON}</think>{answer}" if "<think>" in reply and "</think>" not in reply else answer

    return script


@dataclass(frozen=True, slots=True)
class Site:
    """A running server, and its engines by name."""

    url: str
    engines: Mapping[str, ScriptedEngine]


@contextmanager
def site(
    tokenizer: HubTokenizer,
    settings: str = SETTINGS,
    token_delay: float = 0.0,
    first_token_delay: float = 0.0,
    stories: Mapping[str, Story] = STORIES,
) -> Iterator[Site]:
    scripts: Mapping[str, Script | Sequence[Line]] = {
        "model": goes_on(tokenizer, stories),
        "asked": goes_on(tokenizer, stories),
        "small": goes_on(tokenizer, stories),
        "target": teaches(tokenizer, stories),
        "judge": Reader(tokenizer, larger_number),
    }
    engines = {
        name: ScriptedEngine(
            tokenizer,
            script,
            name=name,
            context_length=16384,
            token_delay=token_delay,
            first_token_delay=first_token_delay,
        )
        for name, script in scripts.items()
    }
    server = build_server(config := parse_config(settings, ROOT), create_app(config, engines))
    thread = Thread(target=_serve, args=(server,), name="site")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield Site(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", engines)
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":  # to look at the page: python -m tests.page.site
    with site(
        HubTokenizer(ROOT / "demo/tokenizer"), SETTINGS.replace("port = 0", "port = 8123"), token_delay=0.02
    ) as here:
        print(here.url)
        while True:
            time.sleep(3600)
