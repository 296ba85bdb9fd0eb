"""A judge route's own settings."""

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from models.config import Section, resolve
from models.judge_prompts.families import JUDGE_FAMILIES, Kind, parse_form


class JudgeConfig(Section):
    """`[routes.NAME.judge]`: what a judge is asked, and how often.

    `templates` are files in place of the family's own, by what is judged. `rubric` is what a single reply is held
    against where a request brings neither reference nor rubric nor rival. `concurrency` bounds the votes in flight,
    `cache_size` the verdicts remembered (0: none); `shared_cache` keeps them in `server.store`
    too. A second try after a reply without a verdict may be `widening` times as long.
    """

    family: str = "rrm"
    templates: dict[Kind, str] = Field(default_factory=dict)
    rubric: str = ""
    votes: int = Field(default=1, ge=1, le=128)
    concurrency: int = Field(default=256, ge=1)
    cache_size: int = Field(default=100_000, ge=0)
    shared_cache: bool = False
    widening: float = Field(default=2.0, gt=1)
    teams: bool = False

    @field_validator("family")
    @classmethod
    def _known_family(cls, value: str) -> str:
        if value not in JUDGE_FAMILIES:
            raise ValueError(f"unknown judge family {value!r}; known: {', '.join(JUDGE_FAMILIES)}")
        return value

    @field_validator("templates")
    @classmethod
    def _readable(cls, templates: dict[Kind, str], info: ValidationInfo) -> dict[Kind, str]:
        files: dict[Kind, str] = {kind: resolve(file, info, must_exist=True) for kind, file in templates.items()}
        for kind, file in files.items():
            parse_form(kind, Path(file).read_text(encoding="utf-8"))
        return files
