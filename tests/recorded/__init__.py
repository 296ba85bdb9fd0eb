"""What the server says, byte for byte, to requests of every API: recorded once, and held to ever after.

`python -m tests.recorded --write` records anew.
"""
