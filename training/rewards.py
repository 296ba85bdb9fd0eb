"""What a reply earns. A reward that cannot be computed is an error, never 0."""

from training.replies import Reply
from training.tasks import Task


def correctness(task: Task, question: str, reply: Reply) -> float:
    """LHRM's rule reward: 1 for a well-formed reply with the right answer, else 0."""
    return float(reply.complete and task.is_correct(question, reply.answer))


def rule(task: Task, question: str, reply: Reply) -> float:
    """RRM's rule reward (arXiv 2505.14674): +1 for a right verdict, -1 for a wrong one or none."""
    return 1.0 if correctness(task, question, reply) else -1.0
