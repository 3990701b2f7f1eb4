"""TLS of the launcher's connections: the context they are opened with, and who the client is."""

import ssl
from asyncio import BaseTransport
from pathlib import Path

from service.errors import SettingsError
from service.settings import Settings
from service.telemetry.log import logger

HANDSHAKE_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 2  # for a client that does not answer the end of its TLS connection
MAX_NAME_LENGTH = 64
UNNAMED = "unnamed"
# In the order in which they name a client.
_ALTERNATIVE_NAMES = ("DNS", "email", "URI")


class Tls:
    """What new connections are opened with. It changes only as a whole, by `reload`.

    A new context also forgets the sessions of the old one: nobody resumes a session that a client
    certificate opened which is not accepted any more.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the files of the settings; raises SettingsError."""
        self._settings = settings
        self.context = make_context(settings)

    def reload(self) -> None:
        """Read the files again; where they cannot be used, those from before stay."""
        try:
            self.context = make_context(self._settings)
        except SettingsError as error:
            logger.error("TLS files are not reloaded: %s", error)


def make_context(settings: Settings) -> ssl.SSLContext | None:
    """A context of the files that the settings name, None where they name none.

    Raises SettingsError, which never shows what the files hold.
    """
    certificate, key = settings.tls_cert_file, settings.tls_key_file
    client_ca = settings.tls_client_ca_file
    if certificate is None or key is None:
        return None
    _check_readable("VITRINE_TLS_CERT_FILE", certificate)
    _check_readable("VITRINE_TLS_KEY_FILE", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # With a password, so that OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise SettingsError(
            "VITRINE_TLS_CERT_FILE, VITRINE_TLS_KEY_FILE: expected PEM files of a certificate, "
            f"{certificate}, and of its key without a password, {key}: {_reason(error)}"
        ) from None
    if client_ca is not None:
        _trust(context, client_ca)
    return context


def _trust(context: ssl.SSLContext, client_ca: Path) -> None:
    """Accept certificates of clients; a route that needs one asks for it itself."""
    name = "VITRINE_TLS_CLIENT_CA_FILE"
    _check_readable(name, client_ca)
    try:
        context.load_verify_locations(client_ca)
    except (OSError, ValueError) as error:
        expected = f"a PEM file of certificates, {client_ca}"
        raise SettingsError(f"{name}: expected {expected}: {_reason(error)}") from None
    context.verify_mode = ssl.CERT_OPTIONAL


def _check_readable(name: str, file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise SettingsError(f"{name}: expected a file at {file}: {error.strerror}") from None


def _reason(error: Exception) -> str:
    """Why OpenSSL takes no file, in its own words and without a place in its source."""
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else "it cannot be read"


def client_name(transport: BaseTransport) -> str:
    """The name in the client's certificate, of printable ASCII; empty without a certificate."""
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return ""
    names = [
        value for part in certificate["subject"] for kind, value in part if kind == "commonName"
    ]
    others = certificate.get("subjectAltName", ())
    names += [value for wanted in _ALTERNATIVE_NAMES for kind, value in others if kind == wanted]
    name = next(filter(None, names), UNNAMED)
    return "".join(letter if " " <= letter <= "~" else "?" for letter in name[:MAX_NAME_LENGTH])
