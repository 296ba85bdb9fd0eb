"""The questions that make the demo models: each with a verifiable answer, a thought that leads to it, and a knob for
difficulty. Recipes name a task's class, `data.task = "demo.tasks.chain:Chain"`; tests take them from `TASKS`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from demo.tasks.chain import Chain
from demo.tasks.checked import Checked
from demo.tasks.countdown import Countdown
from demo.tasks.english import English
from demo.tasks.judging import Judging
from training.data.questions import Task

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "chain": Chain(),
        "checked": Checked(),
        "countdown": Countdown(),
        "english": English(),
        "judging": Judging(),
    }
)
