"""Measure engines: their quality compared with the float network's, and time per batch."""

import time
from typing import Any

import numpy as np
from tqdm import tqdm

from service.artifacts.manifest import Engine, EngineName
from service.engines.engine import Engine as RunningEngine
from service.pixels.preprocess import Floats
from training.errors import ExportError
from training.tasks.task import INPUT, Outputs, TrainingTask

COMPARISON_BATCH = 50
TIMED_BATCHES = (1, 8, 32)
MAX_BATCH_S = 0.5  # a batch that takes longer is not served on a CPU
TIMED_ROUNDS = 20

Engines = dict[EngineName, Engine]


def measure(
    running: dict[EngineName, RunningEngine], inputs: Floats, truth: Any, task: TrainingTask
) -> Engines:
    """The quality and the speed of each engine; one whose outputs are not finite is left out.

    `inputs` are preprocessed images and `truth` their right answers, in the task's form. Raises
    ExportError if the outputs of the float network itself are not finite.
    """
    answers = {name: _answers(engine, inputs) for name, engine in running.items()}
    expected = answers["keras"]
    if not _are_finite(expected):
        raise ExportError("expected finite outputs from the network, got NaN or infinity")
    sound = {name: running[name] for name, came in answers.items() if _are_finite(came)}
    for name in running.keys() - sound.keys():
        print(f"No {name}: some of its outputs are NaN or infinite")
    times = _milliseconds(sound, inputs[:1])
    return {
        name: Engine(
            max_abs_difference=_largest_difference(answers[name], expected),
            quality=_rounded(task.quality(answers[name], expected, truth)),
            milliseconds=times[name],
        )
        for name in sound
    }


def _answers(engine: RunningEngine, images: Floats) -> dict[str, Floats]:
    """The outputs for all images, by name."""
    starts = tqdm(range(0, len(images), COMPARISON_BATCH), f"compare {engine.name}")
    batches = [engine.predict({INPUT: images[i : i + COMPARISON_BATCH]}) for i in starts]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _are_finite(outputs: Outputs) -> bool:
    return all(np.isfinite(output).all() for output in outputs.values())


def _largest_difference(came: Outputs, expected: Outputs) -> float:
    return round(max(float(np.abs(expected[name] - came[name]).max()) for name in expected), 6)


def _rounded(quality: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in quality.items()}


def _milliseconds(
    engines: dict[EngineName, RunningEngine], example: Floats
) -> dict[EngineName, dict[str, float]]:
    """Median time of one `predict` by engine and batch size.

    Engines take turns, because a machine's speed varies. The largest batch comes first, so that
    buffers are allocated. Sizes for which the fastest engine takes over MAX_BATCH_S are left out.
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
            engine.predict({INPUT: batch})
            if number:  # the first round warms up
                taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}
