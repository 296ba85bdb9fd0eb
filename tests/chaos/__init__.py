"""What the server does when things go wrong under load. `python -m tests.chaos`, or `make chaos`.

Each scenario is a file with a function `story(short)`, which asserts what must hold and returns the figures.
"""
