"""The requests that run now, so that their clients can end their thinking, or all of them, from another connection."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from controllers.generation.events import Interrupt


class Running:
    """Interrupts by key name and request id. Clients choose ids, so one may stand for several requests."""

    def __init__(self) -> None:
        self._interrupts: dict[tuple[str | None, str], list[Interrupt]] = {}

    @contextmanager
    def listed(self, key_name: str | None, ids: Sequence[str], interrupt: Interrupt) -> Iterator[None]:
        """The request can be found under any of its ids while the context lasts."""
        for request_id in ids:
            self._interrupts.setdefault((key_name, request_id), []).append(interrupt)
        try:
            yield
        finally:
            for request_id in ids:
                at = (key_name, request_id)
                self._interrupts[at].remove(interrupt)
                if not self._interrupts[at]:
                    del self._interrupts[at]

    def ask(self, key_name: str | None, request_id: str, wish: str) -> str | None:
        """Asks the running requests of this key with this id to `answer` or to `cancel`. None where there are none, or
        where they are another's; "" where they were asked, else why they cannot."""
        found = list(self._interrupts.get((key_name, request_id), ()))
        if not found:
            return None
        if wish == "answer" and (reason := next((one.refusal for one in found if one.refusal), None)):
            return reason
        for interrupt in found:
            interrupt.ask("answer" if wish == "answer" else "cancel")
        return ""
