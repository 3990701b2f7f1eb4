"""What engines cost: how far their answers are from the float network's, and how long they take."""

import time
from typing import Any

import numpy as np
from tqdm import tqdm

from service.artifacts.manifest import Engine, EngineName
from service.engines.engine import Engine as RunningEngine
from service.pixels.preprocess import Floats
from training.data import Labels
from training.errors import ExportError
from training.evaluation import as_posted, mean_psnr

COMPARISON_BATCH = 50
TIMED_BATCHES = (1, 8, 32)
MAX_BATCH_S = 0.5  # a batch that takes longer is not served on a CPU
TIMED_ROUNDS = 20

Engines = dict[EngineName, Engine]


def measure(
    running: dict[EngineName, RunningEngine], inputs: Floats, truth: Labels | Floats
) -> Engines:
    """How right and how fast each is, but for those that answer something else than numbers.

    inputs are images as the network takes them, truth their labels (n,) or the images that a
    denoiser should give. Raises ExportError if the float network itself gives no numbers.
    """
    answers = {name: _answers(engine, inputs) for name, engine in running.items()}
    expected = answers["keras"]
    if not np.isfinite(expected).all():
        raise ExportError("expected a network that answers numbers, got one that does not")
    sound = {name: running[name] for name, came in answers.items() if np.isfinite(came).all()}
    for name in running.keys() - sound.keys():
        print(f"No {name}: some of its answers are no numbers")
    times = _milliseconds(sound, inputs[:1])
    return {
        name: Engine(**_quality(answers[name], expected, truth), milliseconds=times[name])
        for name in sound
    }


def _quality(came: Floats, expected: Floats, truth: Labels | Floats) -> dict[str, Any]:
    figures = {"max_abs_difference": float(np.abs(expected - came).max())}
    if truth.ndim == 1:
        labels = came.argmax(axis=1)
        figures["label_agreement"] = float((labels == expected.argmax(axis=1)).mean())
        figures["accuracy"] = float((labels == truth).mean())
    else:
        figures["psnr_db"] = mean_psnr(np.asarray(truth, np.float32), as_posted(came))
    return {name: round(value, 6) for name, value in figures.items()}


def _answers(engine: RunningEngine, images: Floats) -> Floats:
    starts = tqdm(range(0, len(images), COMPARISON_BATCH), f"compare {engine.name}")
    return np.concatenate([engine.predict(images[i : i + COMPARISON_BATCH]) for i in starts])


def _milliseconds(
    engines: dict[EngineName, RunningEngine], example: Floats
) -> dict[EngineName, dict[str, float]]:
    """Median time of one `predict` by engine and batch size.

    They take turns, for a machine's speed varies. The largest batch comes first, so that buffers
    are in place; one that the fastest engine takes too long for is left out.
    """
    alone_s = min(_median_s(engines, example, rounds=3).values())
    sizes = [size for size in TIMED_BATCHES if size == 1 or size * alone_s <= MAX_BATCH_S]
    times: dict[EngineName, dict[str, float]] = {name: {} for name in engines}
    for size in tqdm(sorted(sizes, reverse=True), "time"):
        batch = np.repeat(example, size, axis=0)
        for name, seconds in _median_s(engines, batch, TIMED_ROUNDS).items():
            times[name] = {str(size): round(1000 * seconds, 4), **times[name]}
    return times


def _median_s(
    engines: dict[EngineName, RunningEngine], batch: Floats, rounds: int
) -> dict[EngineName, float]:
    taken: dict[EngineName, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.predict(batch)
            if number:  # the first prepares
                taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}
