"""Where the models are that the project ships: one version of each."""

from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"


def shipped(name: str) -> Path:
    """The folder of the one version of a model."""
    (folder,) = (MODELS / name).glob("[0-9]*")
    return folder
