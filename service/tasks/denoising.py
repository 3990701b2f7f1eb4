"""Denoising: one image of any size -> the same image with less noise, as PNG."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from service.artifacts.manifest import FileName, Manifest, TaskSpec, Tensor
from service.engines.engine import Tensors
from service.errors import BadInput, TooLarge
from service.part import Part
from service.pixels.decode import unpack
from service.pixels.preprocess import Floats, scale, separate, to_pixels
from service.pixels.spec import Input, KeepSize, Scale, Tiling
from service.pixels.tiles import predict_tiled
from service.tasks.task import (
    Answer,
    ImageLimits,
    Options,
    ReadImage,
    Run,
    Task,
    check_finite,
    only_input,
)

MIN_SIDE = 8
PNG = "image/png"
# Four planes that come in, three that go out; Pillow's image of them; a PNG of noise is as large as
# its pixels, and is copied once.
_ITEM_BYTES_A_PIXEL = 4 + 3 + 4 + 4 + 4


class DenoisingSpec(TaskSpec):
    """How a large image is cut for the network."""

    type: Literal["denoising"] = "denoising"
    tiling: Tiling


class ExpectedImage(Part):
    """The denoised sample."""

    file: FileName
    tolerance: int = Field(default=2, ge=0, le=255)
    """In levels of 0 to 255."""


class Planes(NamedTuple):
    """An image as the network takes it, and what it does not see of it."""

    colors: Floats
    """(1 or 3, height, width, 1) in 0..1."""
    alpha: Image.Image | None


class Denoising(Task[Planes, Floats]):
    """Takes noise out of an image; colour is denoised channel by channel, alpha is kept."""

    name = "denoising"
    verb = "denoise"
    summary = "Take the noise out of an image."
    default_model = "denoiser"
    media_type = PNG
    batches = False
    spec_type = DenoisingSpec
    expected_type = ExpectedImage

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        assert isinstance(manifest.task, DenoisingSpec)
        self._tiling = manifest.task.tiling
        (self._input,), (self._output,) = manifest.inputs, manifest.outputs

    @classmethod
    def check(cls, manifest: Manifest) -> None:
        """Raise ValueError for anything but grey pixels of any size, in and out."""
        any_size = Input(shape=(None, None, 1), color="grey", resize=KeepSize())
        if manifest.input != any_size:
            raise ValueError(
                "expected an input of grey pixels of any size that is kept, scaled to 0..1; got "
                f"{manifest.input.shape} {manifest.input.color}"
            )
        pixels = [Tensor(shape=(None, None, 1), meaning="pixels")]
        for side, tensors in (("input", manifest.inputs), ("output", manifest.outputs)):
            if list(tensors.values()) != pixels:
                came = [(tensor.meaning, tensor.shape) for tensor in tensors.values()]
                raise ValueError(f"expected one {side} of grey pixels of any size, got {came}")

    @classmethod
    def from_schema_1(cls, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The tiling as the task's, the one input and the one output by name."""
        pixels = {"shape": manifest["input"]["shape"], "dtype": "float32", "meaning": "pixels"}
        return {
            "task": {"type": cls.name, "tiling": manifest["tiling"]},
            "inputs": {"image": pixels},
            "outputs": {"image": manifest["output"]},
        }

    def from_image(self, image: Image.Image, limits: ImageLimits) -> Planes:
        """An opened image -> its planes; raises BadInput or TooLarge for its size."""
        check_size(image, limits.max_denoise_pixels)
        return split(image)

    def item_bytes(self, image: Image.Image) -> int:
        """Of the planes that go in and come out, of alpha, and of the PNG."""
        return image.width * image.height * _ITEM_BYTES_A_PIXEL

    def from_tensors(self, tensors: Tensors) -> Planes:
        """The one input, (height, width, 1) in 0..1."""
        array = only_input(tensors, self._input)
        if array.dtype != np.float32 or array.ndim != 3 or array.shape[2] != 1:
            raise BadInput(
                f"expected {self._input} as float32 of shape (height, width, 1), "
                f"got {array.dtype} of shape {array.shape}"
            )
        check_finite(self._input, array)
        return Planes(array[np.newaxis], None)

    def blank_items(self) -> Sequence[Planes]:
        """Two odd sizes, which are padded: after the second one TensorFlow no longer recompiles."""
        sizes = ((61, 35), (45, 83))
        return [Planes(np.zeros((1, *size, 1), np.float32), None) for size in sizes]

    def compute(self, items: Sequence[Planes], run: Run) -> Sequence[Floats]:
        """Each image by itself, plane by plane and tile by tile -> planes of the same shape."""
        return [predict_tiled(item.colors, self.predictor(run), self._tiling) for item in items]

    def predictor(self, run: Run) -> Any:
        """The engine as a function of planes."""
        return lambda planes: run({self._input: planes})[self._output]

    def encode(self, output: Floats, item: Planes, options: Options) -> Answer:
        """PNG of the image's own size."""
        return Answer(to_png(output, item.alpha), PNG)

    def check_sample(self, output: Floats, expected: ExpectedImage, read: ReadImage) -> None:
        """Every pixel within the tolerance."""
        wanted = split(read(expected.file)).colors
        if output.shape != wanted.shape:
            raise ValueError(f"expected an image of shape {wanted.shape}, got {output.shape}")
        off = float(np.abs(np.clip(output, 0, 1) - wanted).max()) * 255
        if not off <= expected.tolerance:  # not a number is not close, either
            raise ValueError(
                f"expected {expected.file} within {expected.tolerance} levels, "
                f"got {off:.1f} levels off"
            )


def check_size(image: Image.Image, max_pixels: int) -> None:
    """Raise BadInput or TooLarge for an image that a denoiser does not take."""
    if min(image.size) < MIN_SIDE:
        raise BadInput(
            f"expected an image of at least {MIN_SIDE}x{MIN_SIDE} pixels, "
            f"got {image.width}x{image.height}"
        )
    if image.width * image.height > max_pixels:
        raise TooLarge(
            f"expected at most {max_pixels} pixels to denoise, "
            f"got {image.width}x{image.height} = {image.width * image.height} pixels"
        )


def split(image: Image.Image) -> Planes:
    """An opened image -> its colours, grey or red, green and blue, and its alpha."""
    unpack(image)
    colors, alpha = separate(image)
    pixels = np.asarray(colors).reshape(colors.height, colors.width, -1)
    return Planes(scale(np.moveaxis(pixels, 2, 0)[..., np.newaxis], Scale()), alpha)


def to_png(colors: Floats, alpha: Image.Image | None) -> bytes:
    """Planes (1 or 3, height, width, 1) in 0..1, and alpha -> PNG."""
    pixels = np.moveaxis(to_pixels(colors)[..., 0], 0, 2)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if alpha is not None:
        image.putalpha(alpha)
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
