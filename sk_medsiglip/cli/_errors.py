"""The error of a command that was asked for something impossible."""

__all__ = ["CommandError"]


class CommandError(Exception):
    """One sentence for the person at the terminal: what is wrong, what to type."""
