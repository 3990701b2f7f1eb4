"""Errors that end a recipe with one line instead of a stack trace."""


class TrainingError(Exception):
    """A recipe cannot continue; the message says what was expected, what came and how to fix it."""


class DataError(TrainingError):
    """A data set is missing or not as expected."""


class ExportError(TrainingError):
    """A trained network cannot be stored, converted or served correctly."""
