"""The error that a user can mend."""


class UserError(ValueError):
    """What is wrong with a recipe or with what it names, in a line for who wrote it."""
