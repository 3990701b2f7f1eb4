"""What decoders have to say of an image that a client sends."""

import subprocess
import sys
import zlib
from struct import pack

from tests.server import CHECKOUT

TAGS = 100


def odd_tiff(first_tag: int = 1000, samples: int = 1) -> bytes:
    """A grey 8x8 TIFF with tags that nobody knows and a wrong checksum."""
    data = zlib.compress(b"\x40" * 64)[:-4] + bytes(4)  # libtiff writes of it to stderr
    known = [
        (256, 3, 8), (257, 3, 8), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 8),
        (277, 3, samples), (278, 3, 8), (279, 4, len(data)),
    ]  # fmt: skip
    entries = known + [(first_tag + number, 3, 7) for number in range(TAGS)]
    packed = b"".join(pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    # Pillow warns of a tag whose data would lie beyond the end of the file.
    packed += pack("<HHII", first_tag + TAGS, 4, 1000, 2**30)
    head = b"II*\0" + pack("<I", 8 + len(data)) + data
    return head + pack("<H", len(entries) + 1) + packed + bytes(4)


SEND = """
import contextlib, io, resource, sys
import PIL.TiffImagePlugin
from PIL import Image
from tests.service.telemetry.test_quiet import odd_tiff
from service.telemetry.log import configure_logging
is_served, images = sys.argv[1] == "served", int(sys.argv[2])
if is_served:
    configure_logging("json")
def read(number):
    for samples in (1, 100):
        with contextlib.suppress(OSError, SyntaxError):
            Image.open(io.BytesIO(odd_tiff(1000 + number, samples)), formats=["TIFF"]).load()
for number in range(10):
    read(number)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range(images):
    read(number)
kept = len(getattr(PIL.TiffImagePlugin, "__warningregistry__", {}))
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def sent(who: str, images: int) -> tuple[str, int, int]:
    """What is written, how many warnings are kept, and by how many KiB the process grows."""
    ran = subprocess.run(
        [sys.executable, "-c", SEND, who, str(images)],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    kept, grown_kib = map(int, ran.stdout.split())
    return ran.stderr, kept, grown_kib


def test_a_thousand_odd_images_write_and_keep_nothing() -> None:
    written, kept, grown_kib = sent("served", 500)  # each twice
    assert written == ""
    assert kept <= 1  # Python's own
    assert grown_kib < 4096


def test_in_a_program_of_someone_elses_they_are_heard() -> None:
    """Where the service is only imported, the log is not ours; so the test above can fail."""
    written, kept, _ = sent("imported", 10)
    assert "Tag data larger than file" in written
    assert "ZIPDecode: Decoding error" in written
    assert "More samples per pixel than can be decoded" in written
    assert kept >= 10
