"""Encode a network's output for the caller: labels and probabilities, or a PNG."""

from io import BytesIO
from typing import TypedDict

import numpy as np
from PIL import Image

from service.pixels.preprocess import Floats, to_pixels


class Score(TypedDict):
    """One class and its probability."""

    label: str
    index: int
    probability: float


class Prediction(Score):
    """The most probable class, and the `top_k` most probable."""

    top: list[Score]


def encode_scores(probabilities: Floats, labels: tuple[str, ...], top_k: int) -> Prediction:
    """Probabilities (classes,) -> the `top_k` most probable classes, best first."""
    order = (-probabilities).argsort(kind="stable")[:top_k]
    top: list[Score] = [
        {"label": labels[index], "index": index, "probability": round(probability, 6)}
        for index, probability in zip(order.tolist(), probabilities[order].tolist(), strict=True)
    ]
    return {**top[0], "top": top}


def encode_planes(planes: Floats, alpha: Image.Image | None) -> bytes:
    """Planes (1 or 3, height, width, 1) in 0..1, and alpha -> PNG."""
    pixels = np.moveaxis(to_pixels(planes)[..., 0], 0, 2)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if alpha is not None:
        image.putalpha(alpha)
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
