"""A `.tflite` file on the CPU, through XNNPACK: needs no TensorFlow."""

from collections.abc import Collection
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from service.artifacts.manifest import Device, EngineName
from service.engines.engine import Tensors, match_names
from service.pixels.preprocess import Floats


class LiteRTEngine:
    """LiteRT's interpreter; a new largest batch costs about 10 ms once."""

    device: Device = "cpu"
    fixed_sizes = False

    def __init__(
        self,
        model: Path,
        threads: int,
        name: EngineName = "litert",
        *,
        inputs: Collection[str],
        outputs: Collection[str],
        is_mapped: bool = False,
    ) -> None:
        """Load the file; raises ArtifactError where its tensors are not those of the manifest.

        `is_mapped` shares its memory with other processes. The file must stay as it is then: where
        it is shortened, they die.
        """
        self.name = name
        source = {"model_path": str(model)} if is_mapped else {"model_content": model.read_bytes()}
        self._interpreter = Interpreter(**source, num_threads=threads)
        self._inputs = _indices(self._interpreter, inputs, "inputs")
        self._outputs = _indices(self._interpreter, outputs, "outputs")
        self._shapes: dict[str, tuple[int, ...]] = {}

    def predict(self, batch: Tensors) -> dict[str, Floats]:
        """The network's outputs for a batch of its inputs, in the same order."""
        interpreter = self._interpreter
        is_resized = False
        for name, index in self._inputs.items():
            shape = batch[name].shape
            if shape != self._shapes.get(name):
                interpreter.resize_tensor_input(index, shape)
                self._shapes[name] = shape
                is_resized = True
        if is_resized:
            interpreter.allocate_tensors()
        for name, index in self._inputs.items():
            interpreter.set_tensor(index, batch[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in self._outputs.items()}


def _indices(interpreter: Interpreter, wanted: Collection[str], what: str) -> dict[str, int]:
    """The tensor of each name, by the file's signature, or without one by its tensors' names."""
    signatures = interpreter.get_signature_list()
    owner = interpreter.get_signature_runner(next(iter(signatures))) if signatures else interpreter
    details = owner.get_input_details() if what == "inputs" else owner.get_output_details()
    by_name = details if isinstance(details, dict) else {each["name"]: each for each in details}
    names = match_names(wanted, by_name, what)
    return {name: int(by_name[own]["index"]) for name, own in names.items()}
