"""How an image becomes a network's input, as data."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.part import Part

MAX_SIDE = 4096  # pixels of a network's input, or of a tile

Side = Annotated[int, Field(gt=0, le=MAX_SIDE)]


class KeepSize(Part):
    """The image keeps its own size; the network takes any."""

    method: Literal["keep"] = "keep"


class Cover(Part):
    """The centre of the image, cut to the network's proportions and resized to its size."""

    method: Literal["cover"] = "cover"


class FashionMnist(Part):
    """The data set's own procedure for product photos (Xiao, Rasul, Vollgraf 2017, section 2).

    An image of the network's size whose corners are dark (median below `dark_below`, 0 to 255) is
    one already and stays as it is. Of any other the margin within `trim_tolerance` (a fraction of
    full scale) of the corner colour is trimmed, the longest edge is resized to the network's, and
    the result is centred, and negated if its background is light. The paper's sharpening is left
    out: on images of the test split made into photos and back it lost agreement (README, Inputs).
    """

    method: Literal["fashion-mnist"] = "fashion-mnist"
    dark_below: int = Field(default=128, ge=0, le=256)
    trim_tolerance: float = Field(default=0.05, ge=0, lt=1)


class Scale(Part):
    """`(pixel / divisor - mean) / deviation`, from 0..255 to what the network was trained on.

    A mean may be one for all channels, or one for each of red, green and blue.
    """

    divisor: float = Field(default=255.0, gt=0)
    mean: float | tuple[float, float, float] = 0.0
    deviation: float = Field(default=1.0, gt=0)


class Input(Part):
    """All of the preprocessing, as data: shape is (height, width, channels), None for any size."""

    type: Literal["image"] = "image"
    shape: tuple[Side | None, Side | None, int]
    dtype: Literal["float32"] = "float32"
    color: Literal["grey", "rgb"]
    resize: Annotated[KeepSize | Cover | FashionMnist, Field(discriminator="method")]
    scale: Scale = Scale()


class Tiling(Part):
    """How an image of any size is cut for the network, in pixels.

    Sides are padded to a multiple of `multiple`; an image larger than `tile` is computed in tiles
    that overlap by `halo`, at least the radius of the network's receptive field, so that no seam
    shows.
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
