"""How an image becomes a network's input, as data."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.part import Part

MAX_SIDE = 4096  # pixels of a network's input, or of a tile

Side = Annotated[int, Field(gt=0, le=MAX_SIDE)]
Positive = Annotated[float, Field(gt=0)]


class KeepSize(Part):
    """The image keeps its own size; the network takes any."""

    method: Literal["keep"] = "keep"


class Cover(Part):
    """The centre of the image, cut to the network's proportions and resized to its size."""

    method: Literal["cover"] = "cover"


class Contain(Part):
    """The whole image, resized to fit inside the network's size, centred on `fill` (0 to 255)."""

    method: Literal["contain"] = "contain"
    fill: int = Field(default=0, ge=0, le=255)


class Stretch(Part):
    """The whole image, resized to the network's size; its proportions are not kept."""

    method: Literal["stretch"] = "stretch"


class FashionMnist(Part):
    """The data set's own procedure for product photos (Xiao, Rasul, Vollgraf 2017, section 2).

    An image of the network's size with dark corners (median below `dark_below`, 0 to 255) is left
    unchanged. Any other image is trimmed: margins within `trim_tolerance` (a fraction of full
    scale) of the corner colour are cut off. Then its longest edge is resized to the network's, it
    is centred, and it is inverted if its background is light. The paper's sharpening is left out:
    on test images made into photos and back it lowered the agreement (service/README.md).
    """

    method: Literal["fashion-mnist"] = "fashion-mnist"
    dark_below: int = Field(default=128, ge=0, le=256)
    trim_tolerance: float = Field(default=0.05, ge=0, lt=1)


class Scale(Part):
    """`(pixel / divisor - mean) / deviation`, from 0..255 to what the network was trained on.

    Mean and deviation: one number for all channels, or three, in the order of `Input.color`.
    """

    divisor: float = Field(default=255.0, gt=0)
    mean: float | tuple[float, float, float] = 0.0
    deviation: Positive | tuple[Positive, Positive, Positive] = 1.0


class Input(Part):
    """All of the preprocessing, as data: shape is (height, width, channels), None for any size."""

    type: Literal["image"] = "image"
    shape: tuple[Side | None, Side | None, int]
    dtype: Literal["float32"] = "float32"
    color: Literal["grey", "rgb", "bgr"]
    """What the channels are, in this order."""
    resize: Annotated[
        KeepSize | Cover | Contain | Stretch | FashionMnist, Field(discriminator="method")
    ]
    scale: Scale = Scale()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        channels = 1 if self.color == "grey" else 3
        if self.shape[2] != channels:
            raise ValueError(
                f"expected {channels} channels of input for {self.color}, got {self.shape[2]}"
            )
        for name in ("mean", "deviation"):
            if channels == 1 and isinstance(getattr(self.scale, name), tuple):
                raise ValueError(f"expected one {name} for the one channel of grey, got three")
        return self


class Tiling(Part):
    """How an image of any size is cut for the network, in pixels.

    Sides are padded to a multiple of `multiple`. An image larger than `tile` is computed in tiles
    that overlap by `halo`. No seam shows if `halo` is at least the radius of the network's
    receptive field.
    """

    multiple: int = Field(gt=0)
    tile: Side
    halo: int = Field(ge=0)

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if self.tile % self.multiple or self.halo % self.multiple or self.tile <= 2 * self.halo:
            raise ValueError(
                f"expected tile and halo in multiples of {self.multiple}, and a tile larger than "
                f"two halos; got tile {self.tile}, halo {self.halo}"
            )
        return self
