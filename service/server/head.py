"""What the head of a request must be so that no server on the way reads it differently."""

from collections.abc import Sequence

from service.errors import BadInput


def check_head(version: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise BadInput for another version, another coding than chunked, or not one Host.

    Sources: RFC 9112, sections 3.2 and 6.1; names of headers are in lower case.
    """
    if version not in ("1.0", "1.1"):
        raise BadInput(f"expected HTTP/1.1 or HTTP/1.0, got HTTP/{version}")
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and version == "1.0":
        raise BadInput("expected Content-Length with HTTP/1.0, got Transfer-Encoding")
    if codings and codings != [b"chunked"]:
        came = codings[0].decode("latin-1")
        raise BadInput(f"expected Transfer-Encoding chunked, got {came!r:.80}")
    hosts = [name for name, _ in headers].count(b"host")
    if hosts > 1 or (version == "1.1" and not hosts):
        raise BadInput(f"expected one header Host, got {hosts or 'none'}")
