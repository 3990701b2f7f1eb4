"""Transfer: train a classifier on your own folder of photos, on VGG16's convolutions.

Data: --data FOLDER with one folder of images for each class, FOLDER/cat/1.jpg; or such folders in
FOLDER/train and optionally in FOLDER/validation and FOLDER/test. A split without a folder is held
out of the training photos.
First a new head is trained on frozen convolutions, then the whole network at a low learning rate.
A thousand photos take about half an hour on 2 CPU cores at 96 pixels, five times as long at 224.
"""

import re
from pathlib import Path

from training.data import check_labels
from training.drawings import shapes
from training.errors import DataError
from training.options import TRANSFER_OPTIONS, Options, model_name
from training.transfer import TransferRecipe, train_on_photos

OPTIONS = {
    "--name": {"type": model_name, "help": "of the model (default: the folder's)"}
} | TRANSFER_OPTIONS


def run(options: Options) -> Path:
    """Data, network, train, evaluate, export; returns the artifact's folder."""
    if options.data is None:
        raise DataError("expected a folder of photos: --data FOLDER")
    given = options.arguments["name"]
    folder = options.data.resolve().name
    check_labels([folder], options.data.absolute())  # it is shown in the card
    name = given or re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")[:63] or "photos"
    recipe = TransferRecipe(
        name=name,
        title=f"{name}, by transfer from VGG16",
        purpose="Names which of the classes a photo shows, among those it was trained on.",
        not_for="Photos of anything else: they still get the name of one of the classes.",
        data=f"The folder `{folder}`; its licence is for its owner to state.",
        limits="It knows what the photos of that folder show, in their light and from their side.",
        dataset=folder,
        sample=shapes,
    )
    return train_on_photos(recipe, options)
