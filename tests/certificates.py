"""Certificates for tests of TLS, signed by an authority that is drawn up on the spot."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme

HOST = "127.0.0.1"
PAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Files:
    """The PEM files that a server is set up with."""

    certificate: Path
    key: Path
    client_ca: Path

    def settings(self) -> dict[str, Path]:
        """The settings of a server that wants certificates of its clients."""
        return self.settings_without_clients() | {"tls_client_ca_file": self.client_ca}

    def settings_without_clients(self) -> dict[str, Path]:
        """The settings of a server that does not."""
        return {"tls_cert_file": self.certificate, "tls_key_file": self.key}


def write_files(
    folder: Path,
    ca: trustme.CA,
    client_ca: trustme.CA | None = None,
    key_type: trustme.KeyType = trustme.KeyType.ECDSA,
) -> Files:
    """A new certificate of the server by `ca`; may be called again to renew what a folder has."""
    files = Files(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    made = ca.issue_cert(HOST, key_type=key_type)
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    made.private_key_pem.write_to_path(str(files.key))
    (client_ca or ca).cert_pem.write_to_path(str(files.client_ca))
    return files


def trust(ca: trustme.CA) -> ssl.SSLContext:
    """What a client accepts that knows only this authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    return context


def identity(
    ca: trustme.CA,
    client_ca: trustme.CA,
    name: str,
    valid: tuple[datetime, datetime] | None = None,
) -> ssl.SSLContext:
    """The same with a client's certificate of this name, valid now if nothing else is said."""
    context = trust(ca)
    not_before, not_after = valid or (None, None)
    client_ca.issue_cert(
        "client@example.org", common_name=name, not_before=not_before, not_after=not_after
    ).configure_cert(context)
    return context
