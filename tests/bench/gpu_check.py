"""`make gpu-check`: every artifact on this machine's GPU, on whichever backend Keras has here.

Each network's answers are compared with those of the same backend on the CPU, its sample's with the
recorded one; then images/s by batch size, beside what the card does in one large matrix product.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from service.artifacts.files import Artifact, find_artifacts, verify
from service.artifacts.manifest import Device, EngineName, Manifest
from service.engines.gpus import count_gpus, gpu_memory, let_memory_grow
from service.engines.keras import HALF_POLICY, KerasEngine
from service.inference.memory import Memory
from service.inference.model import Model
from service.pixels.preprocess import Floats, preprocess
from service.settings import Settings
from service.tasks import TASKS
from tests.metrics import metrics_of
from tests.server import CHECKOUT

COMPARED_IMAGES = 32
ANY_SIDE = 64  # for a network that takes images of any size
BATCH_SIZES = (1, 8, 32, 128)
TIMED_S = 1.0
MATRIX_SIDE = 4096
MAX_ABS_DIFFERENCE = 0.05
HIDDEN = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


def main() -> None:
    """Check every model; ends with status 1 if one does not answer as on the CPU."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu_check", description=__doc__)
    parser.add_argument("--models", type=Path, default=CHECKOUT / "models", help="(%(default)s)")
    parser.add_argument("--on-cpu", type=Path, help="write the CPU's answers here, no more")
    arguments = parser.parse_args()
    artifacts = find_artifacts(arguments.models, (), TASKS)
    if arguments.on_cpu:
        for artifact in tqdm(artifacts, "on the CPU"):
            np.save(answers_file(arguments.on_cpu, artifact), answers(artifact, "cpu", "keras"))
        return
    let_memory_grow()
    import keras

    backend = keras.backend.backend()
    if not count_gpus():
        raise SystemExit(f"error: expected a GPU; Keras's backend {backend} sees none")
    cards = ", ".join(gpu.name for gpu in gpu_memory()) or "a GPU"
    print(f"Keras {keras.__version__} on {backend}, {cards}")
    limits = {half: limit_flops(half=half) for half in (False, True)}
    for half, flops in limits.items():
        print(f"{MATRIX_SIDE}-square matrices, {precision(half)}: {flops / 1e12:,.1f} TFLOP/s")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", __spec__.name, "--models", str(arguments.models),
             "--on-cpu", folder],
            env=os.environ | HIDDEN,
            check=True,
        )  # fmt: skip
        bad = [
            artifact
            for artifact in artifacts
            if not check(artifact, np.load(answers_file(Path(folder), artifact)), limits)
        ]
    if bad:
        names = ", ".join(str(artifact.folder) for artifact in bad)
        raise SystemExit(f"error: not the CPU's answers: {names}")


def check(artifact: Artifact, expected: Floats, limits: dict[bool, float]) -> bool:
    """Print how one artifact does on the GPU; whether its answers are the CPU's."""
    verify(artifact)
    manifest = artifact.manifest
    is_right = True
    names: tuple[EngineName, ...] = ("keras", "keras-half")
    for name in (name for name in names if name in manifest.engines):
        came = answers(artifact, "gpu", name)
        difference = float(np.abs(came - expected).max())
        agreement = 1.0
        if came.ndim == 2:  # a number for each label
            agreement = float((came.argmax(axis=1) == expected.argmax(axis=1)).mean())
        served = manifest.engine.get("gpu") == name
        print(
            f"\n{manifest.name} {manifest.version}, {name}{' (served)' if served else ''}: "
            f"same label on {agreement:.1%} of {len(came)} images, outputs by up to "
            f"{difference:.2g} from the CPU's"
        )
        engine = opened(artifact, "gpu", name)
        if served:
            is_right = difference <= MAX_ABS_DIFFERENCE
            prove(artifact, engine)
        flops = flops_per_image(engine, manifest)
        limit = limits[name == "keras-half"]
        for size in BATCH_SIZES:
            rate = size / seconds(partial(predict, engine, manifest, blank(manifest, size)))
            share = rate * flops / limit
            print(f"  batch {size:>3}: {rate:>10,.0f} images/s, {share:.1%} of the card's limit")
    return is_right


def prove(artifact: Artifact, engine: KerasEngine) -> None:
    """Raise ArtifactError unless the sample is answered as recorded."""
    manifest = artifact.manifest
    task = TASKS[manifest.task.type](manifest)
    settings = Settings(workers=1)
    memory = Memory(settings, None, 0).share_of_model()
    model = Model(artifact, task, engine, settings, metrics_of(manifest), memory=memory)
    model.prove()
    model.close()


def answers(artifact: Artifact, device: Device, name: EngineName) -> Floats:
    """What an engine answers to the sample and to random images."""
    manifest = artifact.manifest
    engine = opened(artifact, device, name)
    height, width, channels = shape(manifest)
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (COMPARED_IMAGES - 1, 8, 8, channels), np.uint8)
    images = [
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).resize((width, height))
        for pixels in coarse
    ]
    with Image.open(artifact.path(manifest.sample.file)) as sample:
        images.append(sample.resize((width, height)))
    batch = np.stack([preprocess(image, manifest.input) for image in images])
    return predict(engine, manifest, batch)


def opened(artifact: Artifact, device: Device, name: EngineName) -> KerasEngine:
    """One of Keras's engines of an artifact."""
    manifest = artifact.manifest
    file = artifact.path(str(manifest.engines[name].file))
    return KerasEngine(file, device, name, inputs=manifest.inputs, outputs=manifest.outputs)


def predict(engine: KerasEngine, manifest: Manifest, batch: Floats) -> Floats:
    """The one output for a batch of the one input."""
    (name,) = manifest.inputs
    (output,) = engine.predict({name: batch}).values()
    return output


def answers_file(folder: Path, artifact: Artifact) -> Path:
    """Where the CPU's answers lie."""
    return folder / f"{artifact.manifest.name}-{artifact.manifest.version}.npy"


def shape(manifest: Manifest) -> tuple[int, int, int]:
    """Height, width and channels to check a network with."""
    height, width, channels = manifest.input.shape
    return height or ANY_SIDE, width or ANY_SIDE, channels


def blank(manifest: Manifest, size: int) -> Floats:
    """A batch of nothing."""
    return np.zeros((size, *shape(manifest)), np.float32)


def flops_per_image(engine: KerasEngine, manifest: Manifest) -> float:
    """Multiplications and additions of all convolutions and dense layers."""
    total = 0.0
    for layer, output in layer_outputs(engine, shape(manifest)):
        kernel = layer.kernel.shape
        places = float(np.prod(output[1:-1])) if len(output) > 2 else 1.0
        total += 2 * float(np.prod(kernel)) * places
    return total


def layer_outputs(engine: KerasEngine, size: tuple[int, int, int]) -> list[tuple[Any, Any]]:
    """Every layer with a kernel, and the shape of what it gives for one image."""
    import keras

    network = keras.models.clone_model(engine.network, input_tensors=keras.Input(size))
    return [(layer, layer.output.shape) for layer in network.layers if hasattr(layer, "kernel")]


def limit_flops(*, half: bool) -> float:
    """FLOP/s of one large matrix product: what the card does at best, as measured."""
    import keras

    dtype = precision(half)
    # Its product with itself is itself: no overflow.
    square = keras.ops.full((MATRIX_SIDE, MATRIX_SIDE), 1 / MATRIX_SIDE, dtype)

    def multiply() -> None:
        product = square
        for _ in range(20):  # enough that a call's own cost does not count
            product = keras.ops.matmul(product, square)
        np.asarray(keras.ops.convert_to_numpy(product[0, 0]))

    return 20 * 2 * MATRIX_SIDE**3 / seconds(multiply)


def precision(half: bool) -> str:
    """The name of the type that is computed in."""
    return HALF_POLICY.removeprefix("mixed_") if half else "float32"


def seconds(run: Callable[[], object]) -> float:
    """The median time of a call, over about a second."""
    run()
    times: list[float] = []
    while sum(times) < TIMED_S:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


if __name__ == "__main__":
    main()
