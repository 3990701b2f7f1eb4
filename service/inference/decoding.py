"""What a caller sends -> one item of a task, within the budget of memory."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from PIL import Image

from service.call import Call
from service.errors import BadInput, DeadlinePassed
from service.inference.admission import Place
from service.inference.budget import SMALL_BYTES, Reservation, Share
from service.inference.costs import Costs
from service.pixels.cost import decode_bytes
from service.pixels.decode import check_image, detach
from service.pixels.preprocess import Floats
from service.tasks.task import ImageLimits, Task
from service.telemetry.counters import Counter

Source: TypeAlias = bytes | Image.Image | Mapping[str, Floats]
"""What a caller sends: an encoded image, an opened one, or the network's inputs."""
Decode: TypeAlias = Callable[[Image.Image, ImageLimits], Any]

# Up to this many pixels, unpacking takes less than a hand-over to a thread.
INLINE_PIXELS = 128 * 128
# A small TIFF may lie in a tile that is huge.
INLINE_BYTES = 32 * INLINE_PIXELS


class Decoder:
    """Decodes the items of one model, at most as many at once as its share of memory allows."""

    def __init__(
        self,
        task: Task[Any, Any],
        limits: ImageLimits,
        memory: Share,
        progressive_jpegs: Counter,
        costs: Costs | None,
    ) -> None:
        """`costs` are those of the task's items, where they differ."""
        self._task = task
        self._limits = limits
        self._memory = memory
        self._memory_of_small = memory.beside()
        self._progressive_jpegs = progressive_jpegs
        self._costs = costs

    async def decode(
        self, source: Source, call: Call, place: Place
    ) -> tuple[Any, Reservation | None]:
        """One item, and the memory that is held for it: release it once the item is answered.

        Small items hold none. Raises RequestError, Unavailable, DeadlinePassed or ClientGone.
        """
        # Bytes first: a check for an abstract class is slow.
        if not isinstance(source, bytes) and isinstance(source, Mapping):
            item = self._task.from_tensors(source, self._limits)
            if self._costs is not None:
                place.expect(self._costs.of_item(item))
            return item, None
        image, decode = self._opened(source)
        if self._costs is not None:
            place.expect(self._costs.of_image(image))
        width, height = image.size
        is_small = width * height <= INLINE_PIXELS
        # What an image of few pixels takes while it is unpacked is gone before another is.
        unpacking = 0
        if not is_small or image.format == "TIFF":
            unpacking = decode_bytes(image, self._task.manifest.input)
        item_bytes = self._task.item_bytes(image)
        is_inline = is_small and unpacking <= INLINE_BYTES
        held = None
        if unpacking + item_bytes > SMALL_BYTES:
            share = self._memory_of_small if is_inline else self._memory
            held = await share.reserve(
                unpacking + item_bytes, "an image", call.is_gone, place.check
            )
        try:
            if is_inline:
                item = decode(image, self._limits)
            else:
                item = await self._in_thread(decode, image, call, held)
        except Exception:
            if held is not None:
                held.release()
            raise
        if held is not None:
            held.shrink_to(item_bytes)
        return item, held

    def _opened(self, source: bytes | Image.Image) -> tuple[Image.Image, Decode]:
        if isinstance(source, bytes):
            image = self._task.open(source, self._limits)
            if "progressive" in image.info:
                self._progressive_jpegs.inc()
            return image, self._task.from_image
        if isinstance(source, Image.Image):
            check_image(source, self._limits.max_image_pixels)
            return source, self._from_opened
        raise BadInput(f"expected bytes, a PIL image or tensors, got {type(source).__name__}")

    async def _in_thread(
        self, decode: Decode, image: Image.Image, call: Call, held: Reservation | None
    ) -> Any:
        """A thread cannot be cancelled: what it holds is released when it ends."""

        def work() -> Any:
            if time.perf_counter() > call.deadline:
                raise DeadlinePassed("the deadline passed before the image was decoded")
            return decode(image, self._limits)

        working = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            working.add_done_callback(lambda done: _abandon(done, held))
            raise

    def _from_opened(self, image: Image.Image, limits: ImageLimits) -> Any:
        """An item from a caller's own image, which is not changed."""
        return self._task.from_image(detach(image), limits)


def _abandon(done: "asyncio.Future[Any]", held: Reservation | None) -> None:
    if not done.cancelled():
        done.exception()  # nobody waits for it
    if held is not None:
        held.release()
