"""The shipped classifier on real images: skipped where the data set is absent."""

import gzip
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from service.artifacts.manifest import read_manifest
from service.pixels.preprocess import preprocess
from service.tasks import TASKS
from tests.server import CHECKOUT, serve

COUNT = 1000
MIN_LABEL_AGREEMENT = 0.99  # what an engine that is served may cost
ARTIFACT = CHECKOUT / "models/fashion-mnist/1"
FOLDERS = (
    CHECKOUT.parent / "shared/keras/datasets/fashion-mnist",
    Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets/fashion-mnist",
)
PREDICT = "/v1/models/fashion-mnist:predict"

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def test_split() -> tuple[Pixels, Pixels]:
    """The first images (n, 28, 28) and labels (n,) of the official test split."""
    names = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
    for folder in FOLDERS:
        if all((folder / name).is_file() for name in names):
            images, labels = (gzip.decompress((folder / name).read_bytes()) for name in names)
            pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
            return pixels[:COUNT], np.frombuffer(labels, np.uint8, offset=8)[:COUNT]
    pytest.skip(f"Fashion-MNIST's test split is in none of {', '.join(map(str, FOLDERS))}")


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, test_split: tuple[Pixels, Pixels]
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("accuracy")
    settings: dict[str, object] = {"models": "fashion-mnist", "log_requests": False}
    with serve(folder, **settings) as server, server.client() as opened:
        yield opened


def posted(client: httpx.Client, image: Image.Image, image_format: str = "PNG") -> int:
    """The index of the label that the service gives."""
    buffer = BytesIO()
    image.save(buffer, image_format)
    headers = {"Content-Type": "image/*"}
    answer = client.post(PREDICT, content=buffer.getvalue(), headers=headers)
    index: int = answer.json()["predictions"][0]["index"]
    return index


@pytest.fixture(scope="module")
def answers(client: httpx.Client, test_split: tuple[Pixels, Pixels]) -> list[int]:
    """What the service answers to each test image."""
    return [posted(client, Image.fromarray(image)) for image in test_split[0]]


def test_accuracy_is_that_of_the_manifest(
    answers: list[int], test_split: tuple[Pixels, Pixels]
) -> None:
    accuracy = read_manifest(ARTIFACT, TASKS).metrics["accuracy"]
    deviation = np.sqrt(accuracy * (1 - accuracy) / COUNT)
    came = float((np.array(answers) == test_split[1]).mean())
    assert abs(came - accuracy) < 3 * deviation


def test_labels_are_those_of_the_trained_network(
    answers: list[int], test_split: tuple[Pixels, Pixels]
) -> None:
    keras: Any = pytest.importorskip("keras", reason="Keras is not installed")
    spec = read_manifest(ARTIFACT, TASKS).input
    batch = np.stack([preprocess(Image.fromarray(image), spec) for image in test_split[0]])
    network = keras.saving.load_model(ARTIFACT / "model.keras", compile=False)
    probabilities = network.predict_on_batch(batch)
    agreement = float((np.array(answers) == probabilities.argmax(axis=1)).mean())
    assert agreement >= MIN_LABEL_AGREEMENT


def product_photo(image: Pixels, random: np.random.Generator) -> Image.Image:
    """Dark on white, ten times as large, off-centre, in colour."""
    garment = ImageOps.invert(Image.fromarray(image)).resize((280, 280), Image.Resampling.NEAREST)
    width, height = random.integers(300, 700, 2).tolist()
    photo = Image.new("RGB", (width, height), "white")
    corner = int(random.integers(0, width - 279)), int(random.integers(0, height - 279))
    photo.paste(garment, corner)
    return photo


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_product_photos_keep_their_labels(
    client: httpx.Client,
    answers: list[int],
    test_split: tuple[Pixels, Pixels],
    image_format: str,
) -> None:
    random = np.random.default_rng(1)
    came = []
    for image in test_split[0][:300]:
        photo = product_photo(image, random)
        if image_format == "PNG":  # cut out: white becomes transparent
            photo.putalpha(ImageOps.invert(photo.convert("L")).point([0] * 8 + [255] * 248))
        came.append(posted(client, photo, image_format))
    agreement = float((np.array(came) == np.array(answers[:300])).mean())
    assert agreement >= 0.94
