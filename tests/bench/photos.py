"""PSNR of colour photos with noise that are denoised, each channel by itself and as served.

`python -m tests.bench.photos --data data/clothing/validation`: the figures of service/README.md.
The noise is Gaussian, clipped and stored in 8 bits, as in a posted image.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from service.artifacts.manifest import read_manifest
from service.engines.litert import LiteRTEngine
from service.pixels.preprocess import Floats, Pixels, to_pixels
from service.tasks import TASKS
from service.tasks.denoising import Denoising, Picture
from tests.bench.documents import markdown
from tests.server import CHECKOUT

SIGMAS = (0.05, 0.1, 0.2, 0.3)
MAX_SIDE = 512
COUNT = 60
ARTIFACT = CHECKOUT / "models/denoiser/1"


class Denoiser:
    """The shipped denoiser, in this process."""

    def __init__(self) -> None:
        manifest = read_manifest(ARTIFACT, TASKS)
        task = TASKS["denoising"](manifest)
        assert isinstance(task, Denoising)
        self._task = task
        self._engine = LiteRTEngine(
            ARTIFACT / "model.tflite",
            threads=1,
            inputs=list(manifest.inputs),
            outputs=list(manifest.outputs),
        )

    def as_served(self, colors: Pixels) -> Pixels:
        """(height, width, channels) -> the same."""
        (clean,) = self._task.compute([Picture(colors)], self._engine.predict)
        return clean

    def by_channel(self, colors: Pixels) -> Pixels:
        """The same, each channel as a grey image."""
        channels = (colors[..., place : place + 1] for place in range(colors.shape[2]))
        return np.concatenate([self.as_served(channel) for channel in channels], axis=2)


def some(folder: Path, count: int) -> list[Path]:
    """So many JPEGs under a folder, evenly over their names; ends the process without them."""
    files = sorted(folder.rglob("*.jpg"))
    if len(files) < count:
        raise SystemExit(f"error: expected at least {count} .jpg under {folder}, got {len(files)}")
    return [files[place * len(files) // count] for place in range(count)]


def read_photo(file: Path) -> Pixels:
    """(height, width, 3), of at most MAX_SIDE a side."""
    image = Image.open(file).convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(image)


def with_noise(clean: Pixels, sigma: float, seed: int) -> Pixels:
    """Gaussian noise of a standard deviation in 0..1, in 8 bits."""
    noise = np.random.default_rng(seed).standard_normal(clean.shape, np.float32)
    noisy: Floats = clean / np.float32(255) + np.float32(sigma) * noise
    return to_pixels(noisy)


def psnr_db(clean: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio."""
    error = np.square(clean.astype(np.float64) - other).mean()
    return float(20 * np.log10(255) - 10 * np.log10(error))


def timed_s(denoise: Callable[[Pixels], Pixels], noisy: Pixels) -> tuple[Pixels, float]:
    """What comes out, and the CPU seconds that it took."""
    before_s = time.process_time()
    clean = denoise(noisy)
    return clean, time.process_time() - before_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.photos", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of photos, .jpg")
    parser.add_argument("--count", type=int, default=COUNT, help="of photos (%(default)s)")
    arguments = parser.parse_args()
    photos = [read_photo(file) for file in some(arguments.data, arguments.count)]
    denoiser = Denoiser()
    rows = [["sigma", "noisy", "channel by channel", "as served"]]
    spent_s = np.zeros(2)
    for sigma in SIGMAS:
        of_each = []
        for seed, clean in enumerate(tqdm(photos, f"sigma {sigma}")):
            noisy = with_noise(clean, sigma, seed)
            one, one_s = timed_s(denoiser.by_channel, noisy)
            other, other_s = timed_s(denoiser.as_served, noisy)
            of_each.append([psnr_db(clean, image) for image in (noisy, one, other)])
            spent_s += one_s, other_s
        rows.append([f"{sigma}", *(f"{mean:.2f}" for mean in np.mean(of_each, axis=0))])
    megapixels = len(SIGMAS) * sum(photo.shape[0] * photo.shape[1] for photo in photos) / 1e6
    rows.append(["CPU s a megapixel", "", *(f"{each:.2f}" for each in spent_s / megapixels)])
    print(markdown(rows))


if __name__ == "__main__":
    main()
