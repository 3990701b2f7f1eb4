"""Store the weights of a `.keras` file as float16: half the bytes, float32 again when loaded.

A `.keras` file is a ZIP archive that holds `model.weights.h5`. Its float32 arrays are rewritten as
float16. `keras.saving.load_model` assigns them to float32 variables, so no special loader is
needed. Each weight keeps 11 bits of its mantissa (fewer below 6e-5). A network is rounded before it
is tested, so that the test applies to the stored weights.
"""

import zipfile
from io import BytesIO
from pathlib import Path

import h5py
import keras
import numpy as np

from training.errors import ExportError

WEIGHTS = "model.weights.h5"


def round_to_half(network: keras.Model) -> None:
    """Round every weight to float16; raises ExportError for one outside its range."""
    network.set_weights([_half(weights).astype(np.float32) for weights in network.get_weights()])


def halve_weights(model: Path) -> None:
    """Rewrite a `.keras` file; raises ExportError for a weight outside float16's range."""
    with zipfile.ZipFile(model) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content[WEIGHTS] = _halved(content[WEIGHTS])
    with zipfile.ZipFile(model, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def _halved(weights: bytes) -> bytes:
    target = BytesIO()
    with h5py.File(BytesIO(weights)) as whole, h5py.File(target, "w") as half:

        def copy(name: str, item: "h5py.Group | h5py.Dataset") -> None:
            if not isinstance(item, h5py.Dataset):
                group = half.require_group(name)
                group.attrs.update(item.attrs)
                return
            values = item[()]
            if values.dtype == np.float32:
                values = _half(values)
            half.create_dataset(name, data=values).attrs.update(item.attrs)

        whole.visititems(copy)
        half.attrs.update(whole.attrs)
    return target.getvalue()


def _half(weights: np.ndarray) -> np.ndarray:
    most, limit = np.abs(weights).max(initial=0), np.finfo(np.float16).max
    if not most <= limit:  # written so that NaN is refused, too
        raise ExportError(f"expected weights up to {limit} for half precision, got {most}")
    return weights.astype(np.float16)
