"""A plug-in: every LiteRT engine raises while the file that FAILS_WHILE names is there."""

import os
from pathlib import Path

from service.engines.engine import Tensors
from service.engines.litert import LiteRTEngine
from service.pixels.preprocess import Floats

FAILS_WHILE = "FAILS_WHILE"

_predict = LiteRTEngine.predict


def _fail_or_predict(self: LiteRTEngine, batch: Tensors) -> dict[str, Floats]:
    if Path(os.environ[FAILS_WHILE]).exists():
        raise RuntimeError("the device is gone")
    return _predict(self, batch)


LiteRTEngine.predict = _fail_or_predict  # type: ignore[method-assign]
