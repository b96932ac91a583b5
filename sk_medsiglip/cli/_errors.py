"""The errors of a command that was asked for something impossible."""

__all__ = ["CommandError", "TooFewError"]


class CommandError(Exception):
    """One sentence for the person at the terminal: what is wrong, what to type."""

    exit_code = 2


class TooFewError(CommandError):
    """The command is right, but these images or patients are too few for it."""

    exit_code = 1
