"""Clothing: ten kinds of clothes in everyday photos.

Data: --data FOLDER (default: data/clothing) with train/CLASS and validation/CLASS, such as the
clothing-dataset-small of Alexey Grigorev (CC0). The photos in validation/ are used for
testing, not for training.
Forty minutes on 2 CPU cores at 96 pixels with --epochs 10. Expect a test accuracy of 0.7 on this
project's own base.
"""

from pathlib import Path

from training.drawings import t_shirt
from training.options import TRANSFER_OPTIONS, Options
from training.transfer import TransferRecipe, train_on_photos

DATA = Path("data/clothing")
OPTIONS = TRANSFER_OPTIONS
RECIPE = TransferRecipe(
    name="clothing",
    title="Ten kinds of clothes",
    purpose="Names the garment in an everyday photo: laid out on a floor or a bed, or worn.",
    not_for=(
        "Several garments in one photo, or any decision about the people who wear them. What is "
        "none of the ten kinds still gets one of their names."
    ),
    data=(
        "clothing-dataset-small: photos that people took of their own clothes, collected by Alexey "
        "Grigorev and released as CC0; no photo is part of this project."
    ),
    limits=(
        "More than a quarter of its answers are wrong. Every second dress, hat or shirt is missed; "
        "T-shirts and long sleeves are taken for each other. There are few skirts and hats to "
        "learn from."
    ),
    dataset="clothing-dataset-small (Alexey Grigorev), CC0",
    sample=t_shirt,
    classes=(
        "dress",
        "hat",
        "longsleeve",
        "outwear",
        "pants",
        "shirt",
        "shoes",
        "shorts",
        "skirt",
        "t-shirt",
    ),
)


def run(options: Options) -> Path:
    """Train on the folder; returns the artifact's folder."""
    return train_on_photos(RECIPE, options)
