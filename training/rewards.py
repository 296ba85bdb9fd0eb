"""What a reply earns. A reward that cannot be computed is an error, never 0."""

from training.replies import Reply
from training.tasks import Task


def correctness(task: Task, question: str, reply: Reply) -> float:
    """LHRM's rule reward: 1 for a well-formed reply with the right answer, else 0."""
    return float(reply.complete and task.is_correct(question, reply.answer))
