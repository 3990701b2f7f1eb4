"""Doggy door: recognise one particular dog among other animals; an exercise with few photos.

Data: --data FOLDER (default: data/doggy-door) with train/{bo,not_bo} and valid/{bo,not_bo}. The
photos in valid/ are for testing only.
Ten minutes on 2 CPU cores at 96 pixels. Expect at least 27 of the 30 photos to be right.
"""

from pathlib import Path

from training.drawings import cat
from training.options import TRANSFER_OPTIONS, Options
from training.transfer import TransferRecipe, train_on_photos

DATA = Path("data/doggy-door")
OPTIONS = TRANSFER_OPTIONS
RECIPE = TransferRecipe(
    name="doggy-door",
    title="Doggy door",
    purpose="Tells one dog, Bo, from every other animal: an exercise in learning from few photos.",
    not_for=(
        "Opening a real door: a stranger that looks like Bo gets in, and Bo in bad light stays out."
    ),
    data="Course material, of NVIDIA's deep-learning course: no photo is part of this project.",
    limits=(
        "Few photos to learn from, and ten of Bo to test with: one of them is ten points of his "
        "recall. It knows Bo from other animals, not from other dogs of his kind."
    ),
    dataset="presidential doggy door",
    sample=cat,
    classes=("bo", "not_bo"),
)


def run(options: Options) -> Path:
    """Train on the folder; returns the artifact's folder."""
    return train_on_photos(RECIPE, options)
