"""The plain-English demo beside the model that it was made from, on questions that its generators never wrote.

    python -m tests.accept.english [--phrasings FILE] [--out FILE] [--chats]

The phrasings, 40 questions with answers and 40 everyday prompts, were written by somebody who had not seen the
generators. Greedy; prints and writes aggregates only. `make english-model` first. Right: the number that a reply states
last; for the untouched model also any number that it states, since it ends as it likes. The chats are of
`english_everyday.json` and of the task's test questions.
"""

import argparse
import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

from demo.tasks import TASKS
from demo.tasks.english.numerals import stated
from models.formats.reasoning import Mode
from models.text.tokenizer import HubTokenizer
from tests.processes import ROOT
from training.config.sections import ModelSection
from training.data.questions import draw
from training.data.replies import MODES, ParsedReply, ReplyFormat, format_of
from training.evaluation.statistics import bootstrap, mean
from training.sampling.batches import first_token_probabilities, sample
from training.weights import store

HERE = Path(__file__).parent
BASE, MADE = ROOT / "build/english-base", ROOT / "build/english"
OWN_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the untouched model's own template puts before a conversation."""
LONGEST, BATCH, RESAMPLES = 200, 20, 2000
CHATS, CHAT_SEED = 10, 7


def load(folder: Path) -> tuple[Any, ReplyFormat]:
    config = ModelSection(path=str(folder), dtype="bfloat16")
    model = store.load_model(config, store.load_tokenizer(config), 0).eval()
    return model, format_of("lhrm", HubTokenizer(folder))


def ask(model: Any, form: ReplyFormat, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    return sample(model, prompts, form.end, max_new_tokens=LONGEST, temperature=0.0, batch=BATCH)


def replies(model: Any, form: ReplyFormat, texts: Sequence[str], mode: Mode) -> list[tuple[ParsedReply, int]]:
    """A reply to each text and its tokens, the mode tag among them."""
    forced = form.prefixes[mode]
    found = ask(model, form, [[*form.prompt(text), *forced] for text in texts])
    return [(form.read([*forced, *ids]), len(forced) + len(ids)) for ids in found]


def choices(model: Any, form: ReplyFormat, texts: Sequence[str]) -> list[Mode]:
    """The mode of each reply as the route `english` chooses it: the likelier of the two mode tokens."""
    tags = [form.prefixes[mode][0] for mode in MODES]
    found = first_token_probabilities(model, [form.prompt(text) for text in texts], tags, BATCH)
    return [MODES[int(p.argmax())] for p in found]


def untouched(texts: Sequence[str]) -> list[tuple[str, int]]:
    model, form = load(BASE)
    system = {"role": "system", "content": OWN_SYSTEM}
    prompts = [form.tokenizer.render([system, {"role": "user", "content": text}]) for text in texts]
    return [(form.tokenizer.decode(ids), len(ids)) for ids in ask(model, form, prompts)]


def phrasings(file: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Questions with their answers, and everyday prompts."""
    held = json.loads(file.read_text())
    asked = [(entry["question"], entry["answer"]) for entry in held["arithmetic"]]
    return asked, [entry["question"] for entry in held["everyday"]]


def numbers(text: str) -> frozenset[Fraction]:
    """Every number of a text."""
    return frozenset().union(*(stated(word) for word in re.split(r"[\s=()]+", text)), stated(text))


def summary(right: Sequence[bool], tokens: Sequence[int]) -> dict[str, Any]:
    scores = [float(hit) for hit in right]
    return {"right": mean(scores), "interval": bootstrap(scores, RESAMPLES, 1), "tokens": mean(tokens)}


def measure(asked: Sequence[tuple[str, str]], everyday: Sequence[str]) -> dict[str, Any]:
    model, form = load(MADE)
    texts = [text for text, _ in asked]
    result: dict[str, Any] = {"questions": len(texts), "everyday_prompts": len(everyday)}
    forced: dict[Mode, list[tuple[ParsedReply, int]]] = {mode: replies(model, form, texts, mode) for mode in MODES}
    chosen = choices(model, form, texts)
    free = [forced[mode][i] for i, mode in enumerate(chosen)]
    for name, said in (*forced.items(), ("free", free)):
        right = [
            reply.complete and bool(stated(reply.answer) & stated(answer))
            for (reply, _), (_, answer) in zip(said, asked, strict=True)
        ]
        result[name] = summary(right, [tokens for _, tokens in said])
    result["think_ratio"] = mean([float(mode == "think") for mode in chosen])
    ways: dict[Mode, list[tuple[ParsedReply, int]]] = {mode: replies(model, form, everyday, mode) for mode in MODES}
    picked = choices(model, form, everyday)
    talk = [ways[mode][i] for i, mode in enumerate(picked)]
    result["everyday_direct"] = mean([float(mode == "no_think") for mode in picked])
    result["everyday_complete"] = mean([float(reply.complete) for reply, _ in talk])
    result["everyday_tokens"] = mean([tokens for _, tokens in talk])
    result["everyday_tokens_thinking"] = mean([tokens for _, tokens in ways["think"]])
    plain = untouched(texts)
    tokens = [count for _, count in plain]
    pairs = list(zip(plain, asked, strict=True))
    result["untouched"] = summary([bool(stated(said) & stated(answer)) for (said, _), (_, answer) in pairs], tokens)
    result["untouched_anywhere"] = summary(
        [bool(numbers(said) & stated(answer)) for (said, _), (_, answer) in pairs], tokens
    )
    return result


def chats(everyday: Sequence[str]) -> str:
    """Ten conversations of one turn, unselected: a test question of each level and the first everyday prompts."""
    rng = Random(CHAT_SEED)
    drawn = [draw(TASKS["english"], level, "test", rng).text for level in TASKS["english"].difficulties]
    texts = [*drawn, *everyday[: CHATS - len(drawn)]]
    model, form = load(MADE)
    lines = ["| said | thought | answer |", "|---|---|---|"]
    said = [
        replies(model, form, [text], mode)[0] for text, mode in zip(texts, choices(model, form, texts), strict=True)
    ]
    for text, (reply, _) in zip(texts, said, strict=True):
        cells = (cell.replace("|", "\\|").replace("\n", "<br>") for cell in (text, reply.thought, reply.answer))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phrasings", type=Path, default=HERE / "english_phrasings.json")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--chats", action="store_true", help="print ten sample chats instead")
    arguments = parser.parse_args()
    if arguments.chats:
        print(chats(json.loads((HERE / "english_everyday.json").read_text())))
        return
    result = measure(*phrasings(arguments.phrasings))
    print(json.dumps(result, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
