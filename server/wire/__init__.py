"""The shapes on the wire: pydantic models of what clients send. Nothing here knows an engine."""
