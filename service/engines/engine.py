"""The network itself: `predict(tensors) -> tensors`, each by name; knows nothing of HTTP."""

from collections.abc import Collection, Mapping
from typing import Protocol, TypeAlias

from service.artifacts.manifest import Device, EngineName
from service.errors import ArtifactError
from service.pixels.preprocess import Floats

Tensors: TypeAlias = Mapping[str, Floats]
"""Arrays by the names of the manifest's inputs or outputs; the first axis of each is the batch."""


class Engine(Protocol):
    """A loaded network; not safe across threads."""

    name: EngineName
    device: Device
    fixed_sizes: bool
    """Whether a batch of a new size is slow at first: batches are padded to a few sizes then."""

    def predict(self, batch: Tensors) -> dict[str, Floats]:
        """The network's outputs for a batch of its inputs, in the same order."""
        ...


def match_names(wanted: Collection[str], found: Collection[str], what: str) -> dict[str, str]:
    """The network's own name for each name in the manifest; raises ArtifactError.

    A single tensor needs no name in common: converters call it what they like.
    """
    if len(wanted) == len(found) == 1:
        return dict(zip(wanted, found, strict=True))
    if set(wanted) != set(found):
        raise ArtifactError(
            f"expected a network with the {what} {', '.join(wanted)}, got {', '.join(found)}"
        )
    return {name: name for name in wanted}
