"""A judge as reward, beside the true one: `python -m tests.accept.judged_policy [--steps N]`.

A small model that learned to think for a short while is post-trained twice from there, by `grpo` on the same questions:
once by ratings of the demo judge, which a running reasond serves and which sees no answers, once by the answers. Prints
the accuracy of thinking on test questions before and after each.
"""

import argparse
import json
from pathlib import Path
from random import Random

from demo.tasks import TASKS
from tests.accept.methods import command
from tests.processes import ROOT, reasond
from training.data.questions import draw_many

RUNS = Path("runs/judged")
DEPTHS = [2, 3, 4, 5, 6]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--hft-steps", type=int, default=250, help="of the model that both begin with")
    options = parser.parse_args()
    start = RUNS / "start"
    command("hybrid_hft", f"run.out={start}", f"steps={options.hft_steps}", 'modes=["think"]', "questions=64")
    questions = RUNS / "questions.jsonl"
    drawn = draw_many(TASKS["chain"], DEPTHS, options.steps * 8, "train", Random(5))
    rows = ({"prompt": one.text, "answer": one.answer, "difficulty": one.difficulty} for one in drawn)
    (ROOT / questions).write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = [f"model.path={start}", f"steps={options.steps}", f"data.file={questions}"]
    with reasond(ROOT / "configs/judge.toml", log=ROOT / RUNS / "server.log") as (url, _):
        command("hybrid_judged_grpo", *shared, f"run.out={RUNS / 'judged'}", f"data.checker.url={url}")
    command("hybrid_judged_grpo", *shared, f"run.out={RUNS / 'true'}", 'data.checker="number"')
    for name in ("start", "judged", "true"):
        out = RUNS / name
        settings = [f"data.difficulties={DEPTHS}", 'modes=["think"]', "questions=100"]
        command("hybrid_evaluate", f"model.path={out}", f"out={out}", *settings)
        found = json.loads((ROOT / out / "evaluation.json").read_text())["overall"]["think"]
        low, high = found["interval"]
        print(f"{name}: accuracy {found['accuracy']:.3f} ({low:.3f} to {high:.3f})", flush=True)


if __name__ == "__main__":
    main()
