"""Events: what a record tells."""

from controllers.generation.events import Decision, Finished, Working, noted


def test_the_notes_of_a_conversation_stand_in_its_records() -> None:
    decision = Decision("think", "route", (1, 2))
    end = Finished("stop", None, 1, 0, 1, 0, decision)
    notes = ("an image was left out",)
    for event in (decision, end):
        told = noted(event, notes)
        assert isinstance(told, Decision | Finished)
        record = told.record() if isinstance(told, Decision) else told.record
        assert record["notes"] == list(notes)
        assert noted(event, ()) is event
    assert "notes" not in decision.record()
    working = Working({"drawn": 1})
    assert noted(working, notes) is working
