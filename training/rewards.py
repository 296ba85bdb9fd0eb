"""What a reply earns, from its text and its question alone. A reward that cannot be computed is an error, never 0."""

from models.families import Family
from training.replies import read
from training.tasks import Task


def correctness(task: Task, family: Family, question: str, reply: str, ended: bool) -> float:
    """LHRM's rule reward: 1 for a well-formed reply with the right answer, else 0.

    `reply` is the whole reply, mode tag included, without its end-of-turn token; `ended` says that there was one.
    """
    parsed = read(family, reply)
    return float(ended and parsed.complete and task.is_correct(question, parsed.answer))
