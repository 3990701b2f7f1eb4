"""Denoising: one image of any size -> the same image with less noise, as PNG."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from PIL import Image
from pydantic import Field

from service.artifacts.manifest import FileName, Manifest, TaskSpec, Tensor
from service.engines.engine import Tensors
from service.errors import BadInput, TooLarge
from service.part import Part
from service.pixels.decode import unpack
from service.pixels.depth import SIXTEEN_BIT_MODES
from service.pixels.flatten import separate
from service.pixels.luma import SHRINK, Chroma, brightness, detail, is_grey, shrunk
from service.pixels.noise import noise_sigma, unclipped
from service.pixels.preprocess import Floats, Pixels, scale, to_pixels
from service.pixels.spec import Input, KeepSize, Scale, Tiling
from service.pixels.tiles import cut, network_pixels, padded
from service.tasks.piecewise import Pieces, PiecewiseTask
from service.tasks.task import (
    Answer,
    ImageLimits,
    Options,
    ReadImage,
    check_finite,
    only_input,
)

MIN_SIDE = 8
PNG = "image/png"
STRIP_ROWS = 64
# Noise from which the colours are the network's alone; below, it takes more out than it should.
TRUSTED_SIGMA = 0.2
# Colours and alpha that come in, colours that go out; Pillow's image of them; a PNG of noise is as
# large as its pixels, and is copied once.
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


class Picture(NamedTuple):
    """An image as it is denoised."""

    colors: Pixels | Floats
    """(height, width, 1 or 3); floats are in 0..1."""
    alpha: Pixels | None = None
    """(height, width); the network does not see it."""
    mode: str = "L"
    """L or RGB; grey that came as RGB has one channel here and is answered as RGB."""


class Denoising(PiecewiseTask[Picture, Pixels]):
    """Takes noise out of an image; alpha is kept.

    Of a colour image the network sees the brightness at full size, where the detail is, and red,
    green and blue at a quarter of each side: 1.2 planes instead of 3.
    """

    name = "denoising"
    verb = "denoise"
    summary = "Take the noise out of an image."
    default_model = "denoiser"
    media_type = PNG
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

    def open(self, data: bytes, limits: ImageLimits) -> Image.Image:
        """Read an image's header; raises RequestError, also for a size that is not taken."""
        image = super().open(data, limits)
        check_size(image, limits.max_denoise_pixels)
        return image

    def from_image(self, image: Image.Image, limits: ImageLimits) -> Picture:
        """An opened image -> its pixels; raises BadInput or TooLarge for its size."""
        check_size(image, limits.max_denoise_pixels)
        return split(image)

    def item_bytes(self, image: Image.Image) -> int:
        """Of the colours that go in and come out, of alpha, and of the PNG."""
        return image.width * image.height * _ITEM_BYTES_A_PIXEL

    def from_tensors(self, tensors: Tensors, limits: ImageLimits) -> Picture:
        """The one input, (height, width, 1) in 0..1."""
        array = only_input(tensors, self._input)
        if array.dtype != np.float32 or array.ndim != 3 or array.shape[2] != 1:
            raise BadInput(
                f"expected {self._input} as float32 of shape (height, width, 1), "
                f"got {array.dtype} of shape {array.shape}"
            )
        check_pixels(array.shape[1], array.shape[0], limits.max_denoise_pixels)
        check_finite(self._input, array)
        return Picture(array)

    def blank_items(self) -> Sequence[Picture]:
        """Two odd sizes, which are padded: after the second one TensorFlow no longer recompiles.

        Then a whole tile, by which the time of all others is estimated, and after which the memory
        of the engine grows no more.
        """
        tile = self._tiling.tile
        sizes = ((61, 35), (45, 83), (tile, tile))
        return [Picture(np.zeros((*size, 1), np.uint8)) for size in sizes]

    def work(self, item: Picture) -> int:
        """Pixels that the network computes."""
        height, width, channels = item.colors.shape
        return self._work(height, width, channels)

    def expected_work(self, image: Image.Image) -> int:
        """The same for an opened image; a colour image may turn out to be grey."""
        height, width = sorted(image.size)  # of either orientation; a turned grid costs the same
        return self._work(height, width, 1 if _is_stored_grey(image) else 3)

    def _work(self, height: int, width: int, channels: int) -> int:
        each = network_pixels(height, width, self._tiling)
        if channels == 1 or is_small(height, width):
            return channels * each
        small = network_pixels(-(-height // SHRINK), -(-width // SHRINK), self._tiling)
        return each + channels * small

    def pieces(self, item: Picture) -> Pieces[Pixels]:
        """Tile by tile -> pixels of the same shape."""
        height, width, channels = item.colors.shape
        if channels == 1 or is_small(height, width):
            return (yield from self._by_channel(item.colors))
        return (yield from self._by_brightness(cast(Pixels, item.colors)))

    def _by_channel(self, colors: Pixels | Floats) -> Pieces[Pixels]:
        clean = np.empty(colors.shape, np.uint8)
        for tile in cut(colors.shape[0], colors.shape[1], self._tiling):
            planes = _scaled(np.moveaxis(colors[tile.outer], 2, 0)[..., np.newaxis])
            output = yield from self._predict(planes)
            kept = output[:, *tile.crop, 0]
            clean[tile.inner] = np.moveaxis(to_pixels(kept), 0, 2)
        return clean

    def _by_brightness(self, colors: Pixels) -> Pieces[Pixels]:
        sigma = noise_sigma(colors)
        noisy = shrunk(colors)
        denoised = yield from self._by_channel(noisy)
        share = min(1.0, sigma / TRUSTED_SIGMA)
        chroma = Chroma(
            np.float32(share) * _scaled(denoised) + np.float32(1 - share) * _scaled(noisy)
        )
        table = unclipped(sigma)
        clean = np.empty_like(colors)
        for tile in cut(colors.shape[0], colors.shape[1], self._tiling):
            noisy = colors[tile.outer]
            bright = brightness(noisy)
            output = yield from self._predict(bright[np.newaxis, ..., np.newaxis])
            joined = chroma.added_to(output[0, *tile.crop, 0], *tile.inner)
            joined += detail(noisy, chroma.added_to(bright, *tile.outer), sigma)[tile.crop]
            clean[tile.inner] = table[to_pixels(joined)]
        return clean

    def _predict(self, planes: Floats) -> Pieces[Floats]:
        """Planes (n, height, width, 1) of at most a tile through the network.

        As one piece, or as one for each plane, so that no piece is longer than that of a tile.
        """
        height, width = planes.shape[1:3]
        whole = padded(planes, self._tiling)
        parts = [whole] if whole.size <= self._tiling.tile**2 else np.split(whole, len(whole))
        outputs = []
        for part in parts:
            outputs.append((yield {self._input: part})[self._output])
        return np.concatenate(outputs)[:, :height, :width]

    def encode(self, output: Pixels, item: Picture, options: Options) -> Answer:
        """PNG of the image's own size."""
        return Answer(to_png(output, item.alpha, item.mode), PNG)

    def check_sample(self, output: Pixels, expected: ExpectedImage, read: ReadImage) -> None:
        """Every pixel within the tolerance."""
        wanted = split(read(expected.file)).colors
        if output.shape != wanted.shape:
            raise ValueError(f"expected an image of shape {wanted.shape}, got {output.shape}")
        off = int(np.abs(output.astype(np.int16) - wanted).max())
        if off > expected.tolerance:
            raise ValueError(
                f"expected {expected.file} within {expected.tolerance} levels, got {off} levels off"
            )


def _scaled(values: Pixels | Floats) -> Floats:
    """Levels of 0 to 255 in 0..1; what is in 0..1 already stays."""
    if values.dtype == np.float32:
        return cast(Floats, values)
    return scale(cast(Pixels, values), Scale())


def check_size(image: Image.Image, max_pixels: int) -> None:
    """Raise BadInput or TooLarge for an image that a denoiser does not take."""
    if min(image.size) < MIN_SIDE:
        raise BadInput(
            f"expected an image of at least {MIN_SIDE}x{MIN_SIDE} pixels, "
            f"got {image.width}x{image.height}"
        )
    check_pixels(image.width, image.height, max_pixels)


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise TooLarge for more pixels than that."""
    if width * height > max_pixels:
        raise TooLarge(
            f"expected at most {max_pixels} pixels to denoise, "
            f"got {width}x{height} = {width * height} pixels"
        )


def is_small(height: int, width: int) -> bool:
    """Whether a quarter of a side is less than the network takes."""
    return min(height, width) < SHRINK * MIN_SIDE


def _is_stored_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", *SIXTEEN_BIT_MODES)


def split(image: Image.Image) -> Picture:
    """An opened image -> its colours, grey or red, green and blue, and its alpha."""
    unpack(image)
    separated, transparency = separate(image)
    colors = np.empty((separated.height, separated.width, len(separated.mode)), np.uint8)
    for top in range(0, separated.height, STRIP_ROWS):  # without a copy of the whole on the way
        rows = slice(top, min(top + STRIP_ROWS, separated.height))
        strip = separated.crop((0, rows.start, separated.width, rows.stop))
        colors[rows] = np.asarray(strip).reshape(colors[rows].shape)
    if separated.mode == "RGB" and is_grey(colors):
        colors = colors[..., :1].copy()
    alpha = None if transparency is None else np.asarray(transparency)
    return Picture(colors, alpha, separated.mode)


def to_png(colors: Pixels, alpha: Pixels | None, mode: str) -> bytes:
    """Pixels (height, width, 1 or 3), and alpha -> PNG; one channel may become three alike."""
    image = Image.fromarray(colors[..., 0] if colors.shape[2] == 1 else colors)
    if image.mode != mode:
        image = image.convert(mode)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
