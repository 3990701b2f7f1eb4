"""Half the bytes for the weights of a `.keras` file: stored as float16, widened when loaded.

A `.keras` file is a ZIP archive that holds `model.weights.h5`. Its float32 arrays are written again
as float16; `keras.saving.load_model` assigns them to float32 variables, so that it needs no loader
of its own. Each weight keeps 11 bits of its mantissa: the float network is what has been loaded
from the file, and every engine is compared with that.
"""

import zipfile
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

WEIGHTS = "model.weights.h5"


def halve_weights(model: Path) -> None:
    """Rewrite a `.keras` file; raises OverflowError for a weight beyond float16's range."""
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
                if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
                    raise OverflowError(f"{name}: a weight is beyond the range of float16")
                values = values.astype(np.float16)
            half.create_dataset(name, data=values).attrs.update(item.attrs)

        whole.visititems(copy)
        half.attrs.update(whole.attrs)
    return target.getvalue()
