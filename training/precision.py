"""Half precision for training: twice as fast where the processor computes in it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras

from service.engines.gpus import count_gpus

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
_BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last one is ARM's


def best_policy() -> str:
    """Keras's policy for this machine: weights stay in float32 with each of them."""
    if count_gpus():
        return "mixed_float16"
    with contextlib.suppress(OSError):  # only Linux tells
        if _BFLOAT16_INSTRUCTIONS & set(Path("/proc/cpuinfo").read_text().split()):
            return "mixed_bfloat16"
    return "float32"


@contextlib.contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Layers that are made meanwhile compute by this policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
