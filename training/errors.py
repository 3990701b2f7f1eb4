"""What stops a recipe with a message instead of a stack trace."""


class TrainingError(Exception):
    """Base of both; the message says what was expected, what came, and how to mend it."""


class DataError(TrainingError):
    """A data set that is missing or not as expected."""


class ExportError(TrainingError):
    """A converted network that does not answer like the trained one."""
