"""What stops a recipe with a message instead of a stack trace."""


class TrainingError(Exception):
    """What a recipe cannot go on from: what was expected, what came, and how to mend it."""


class DataError(TrainingError):
    """A data set that is missing or not as expected."""


class ExportError(TrainingError):
    """A trained network that cannot be stored, converted, or served rightly."""
