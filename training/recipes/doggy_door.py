"""Doggy door: lets one particular dog in and no other animal; an exercise with few photos.

Data: --data FOLDER (default: data/doggy-door) with train/{bo,not_bo} and valid/{bo,not_bo}. The
photos in valid/ are tested with, not trained on.
A few minutes on 2 CPU cores. Expect 27 of the 30 photos or more to be named right.
"""

from pathlib import Path

from training.drawings import cat
from training.options import Options
from training.transfer import Task, add_transfer_options, train_on_photos

DATA = Path("data/doggy-door")
TASK = Task(
    name="doggy-door",
    title="Doggy door",
    purpose="Tells one dog, Bo, from every other animal: an exercise in learning from few photos.",
    not_for=(
        "Opening a real door: a stranger that looks like Bo gets in, and Bo in bad light stays out."
    ),
    data=(
        "18 photos of Bo and 120 of other animals to train on, of which some were held out for "
        "validation; 10 and 20 to test with. Course material: no photo is part of this project."
    ),
    limits=(
        "With ten photos of Bo to test with, one of them is ten points of his recall. Black dogs "
        "with a white chest are the likeliest to be taken for him."
    ),
    dataset="presidential doggy door, 168 photos",
    sample=cat,
)

add_options = add_transfer_options


def run(options: Options) -> Path:
    """Train on the folder; returns the artifact's folder."""
    return train_on_photos(TASK, options)
