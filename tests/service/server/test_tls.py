"""TLS of the launcher: what it is started with, who gets in, and what a bad client costs."""

import contextlib
import gc
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from service.errors import SettingsError
from service.server.app import App
from service.server.process import WorkerProcess, shared_counts
from service.server.tls import Tls, client_name, make_context
from service.server.worker import READY, run_worker
from service.settings import Settings, read_settings
from tests.certificates import HOST, PAST, Files, identity, trust, write_files
from tests.logs import kept_log
from tests.server import (
    CHECKOUT,
    Server,
    bentoml_command,
    come_true,
    command,
    environment,
    free_port,
    serve,
)
from tests.service.protocols.test_native import PNG, SAMPLE, upload

MODEL = "fashion-mnist-mlp"
PREDICT = f"/v1/models/{MODEL}:predict"
PATIENCE_S = 20  # reached only where a test fails
NAME = "camera 7"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, ca: trustme.CA) -> Files:
    return write_files(tmp_path, ca)


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, ca: trustme.CA) -> Iterator[Server]:
    """A server that wants certificates of its clients, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("tls")
    known = write_files(folder, ca).settings()
    settings = {"models": MODEL, "workers": 2, "log_requests": True, "log_format": "json"}
    with serve(folder, **settings, **known) as server:
        yield server


def ask(server: Server, path: str, who: ssl.SSLContext) -> httpx.Response:
    """The answer to an image, or to a GET where the path is not that of a model."""
    with httpx.Client(verify=who, base_url=server.url, timeout=PATIENCE_S) as client:
        if path == PREDICT:
            return client.post(path, content=SAMPLE, headers=PNG)
        if path == "/classify":
            return client.post(path, files=upload(SAMPLE))
        return client.get(path)


def settings(known: dict[str, Path]) -> Settings:
    return read_settings(environment(models=MODEL, workers=1, **known))


# The files.


def test_connections_are_of_tls_1_2_at_least(files: Files) -> None:
    context = make_context(settings(files.settings()))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_OPTIONAL


def test_without_files_there_is_no_tls() -> None:
    assert make_context(settings({})) is None


@pytest.mark.parametrize(
    "names",
    [("tls_cert_file",), ("tls_key_file",), ("tls_client_ca_file",)],
    ids=["no key", "no certificate", "authority alone"],
)
def test_half_of_a_pair_stops_the_start(files: Files, names: tuple[str, ...]) -> None:
    known = {name: file for name, file in files.settings().items() if name in names}
    with pytest.raises(SettingsError, match=r"together with VITRINE_TLS_CERT_FILE"):
        settings(known)


def damaged(files: Files, how: str) -> None:
    match how:
        case "missing":
            files.key.unlink()
        case "another's key":
            trustme.CA().issue_cert(HOST).private_key_pem.write_to_path(str(files.key))
        case "no PEM":
            files.key.write_text("open-sesame")
        case "password":
            key = load_pem_private_key(files.key.read_bytes(), None)
            form = Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open-sesame")
            files.key.write_bytes(key.private_bytes(*form))
        case "no authority":
            files.client_ca.write_text("open-sesame")


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("missing", "VITRINE_TLS_KEY_FILE: expected a file at .*No such file"),
        ("another's key", "VITRINE_TLS_KEY_FILE: .*key values mismatch"),
        ("no PEM", "VITRINE_TLS_KEY_FILE: "),
        ("password", "VITRINE_TLS_KEY_FILE: .*without a password"),
        ("no authority", "VITRINE_TLS_CLIENT_CA_FILE: "),
    ],
)
def test_unusable_file_stops_the_start_and_is_not_shown(files: Files, how: str, named: str) -> None:
    damaged(files, how)
    with pytest.raises(SettingsError, match=named) as raised:
        make_context(settings(files.settings()))
    assert "open-sesame" not in str(raised.value)
    assert "BEGIN" not in str(raised.value)


def test_bad_pair_ends_the_launcher_with_one_line(files: Files) -> None:
    damaged(files, "another's key")
    ran = subprocess.run(
        command(free_port()),
        cwd=CHECKOUT,
        env=environment(models=MODEL, **files.settings()),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith("error: VITRINE_TLS_CERT_FILE, VITRINE_TLS_KEY_FILE: ")


def test_bentoml_refuses_tls_settings_rather_than_serve_in_plain_text(files: Files) -> None:
    ran = subprocess.run(
        bentoml_command(free_port()),
        cwd=CHECKOUT,
        env=environment(models=MODEL, workers=1, **files.settings()),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode != 0
    assert "VITRINE_TLS_CERT_FILE" in ran.stderr
    assert "--ssl-certfile" in ran.stderr


# Renewal.


def test_renewed_certificate_is_shown_after_a_reload(files: Files, ca: trustme.CA) -> None:
    tls = Tls(settings(files.settings()))
    before = tls.context
    write_files(files.key.parent, ca)
    tls.reload()
    assert tls.context is not before


def test_reload_of_a_bad_pair_is_logged_and_changes_nothing(files: Files) -> None:
    tls = Tls(settings(files.settings()))
    before = tls.context
    damaged(files, "another's key")
    with kept_log() as log:
        tls.reload()
    assert tls.context is before
    (record,) = log.records
    assert "not reloaded" in record.getMessage()


def shown_certificate(server: Server, ca: trustme.CA) -> bytes | None:
    """What the server shows to a new connection."""
    with connected(server) as plain, trust(ca).wrap_socket(plain, server_hostname=HOST) as talking:
        return talking.getpeercert(binary_form=True)


def test_sighup_renews_the_certificate_of_new_connections(
    files: Files, ca: trustme.CA, tmp_path: Path
) -> None:
    known = files.settings_without_clients()
    with serve(tmp_path, models=MODEL, workers=1, **known) as server:
        before = shown_certificate(server, ca)
        write_files(files.key.parent, ca)
        assert shown_certificate(server, ca) == before
        server.process.send_signal(signal.SIGHUP)
        assert come_true(lambda: shown_certificate(server, ca) != before)


# Who gets in.


def test_log_says_https(mutual: Server) -> None:
    (line,) = [line["message"] for line in mutual.log_lines() if "Listening" in line["message"]]
    assert line.startswith("Listening on https://")


def test_client_that_offers_http_2_gets_http_1_1(mutual: Server, ca: trustme.CA) -> None:
    who = trust(ca)
    who.set_alpn_protocols(["h2", "http/1.1"])
    with connected(mutual) as plain, who.wrap_socket(plain, server_hostname=HOST) as talking:
        assert talking.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/readyz"])
def test_health_needs_no_certificate(mutual: Server, ca: trustme.CA, path: str) -> None:
    assert ask(mutual, path, trust(ca)).status_code == httpx.codes.OK


@pytest.mark.parametrize("path", [PREDICT, "/classify", "/metrics", "/v1/models", "/docs", "/nope"])
def test_all_else_is_401_without_a_certificate(mutual: Server, ca: trustme.CA, path: str) -> None:
    answer = ask(mutual, path, trust(ca))
    assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert answer.json() == {"error": "expected a client certificate, got none"}
    assert answer.headers["WWW-Authenticate"] == 'Certificate realm="vitrine"'


@pytest.mark.parametrize("path", [PREDICT, "/classify", "/metrics", "/v1/models"])
def test_certificate_lets_its_client_in(mutual: Server, ca: trustme.CA, path: str) -> None:
    answer = ask(mutual, path, identity(ca, ca, NAME))
    assert answer.status_code == httpx.codes.OK


def test_log_names_the_client_by_its_certificate(mutual: Server, ca: trustme.CA) -> None:
    ask(mutual, PREDICT, identity(ca, ca, "camera-8"))
    assert come_true(lambda: any(line.get("token") == "camera-8" for line in mutual.log_lines()))


@pytest.mark.parametrize("bad", ["of another authority", "expired"])
def test_bad_certificate_ends_the_connection(mutual: Server, ca: trustme.CA, bad: str) -> None:
    who = identity(ca, ca, NAME, PAST) if bad == "expired" else identity(ca, trustme.CA(), NAME)
    for path in ("/livez", PREDICT):
        with pytest.raises(httpx.TransportError):
            ask(mutual, path, who)


def test_server_is_not_trusted_by_who_knows_another_authority(mutual: Server) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        ask(mutual, "/livez", trust(trustme.CA()))


def test_older_tls_is_refused(mutual: Server, ca: trustme.CA) -> None:
    old = trust(ca)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(httpx.ConnectError):
        ask(mutual, "/livez", old)


# What a bad client costs.


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=PATIENCE_S) as connection:
        yield connection


@pytest.mark.parametrize(
    "sent", [b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" + bytes(range(256)), b""]
)
def test_what_is_not_tls_is_closed_and_leaves_no_line(mutual: Server, sent: bytes) -> None:
    before = mutual.log.read_text()
    with connected(mutual) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP/" not in connection.recv(65536)
            assert connection.recv(65536) == b""
    assert mutual.log.read_text() == before


def test_broken_record_after_the_handshake_leaves_no_line(mutual: Server, ca: trustme.CA) -> None:
    before = mutual.log.read_text()
    with connected(mutual) as connection:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trust(ca).wrap_bio(incoming, outgoing, server_hostname=HOST)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        connection.sendall(outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(65536):
                pass
    assert mutual.log.read_text() == before


def test_handshake_that_does_not_go_on_holds_nobody_up(mutual: Server, ca: trustme.CA) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connected(mutual)).sendall(b"\x16\x03\x01\x02\x00")
        for _ in range(4):
            assert ask(mutual, PREDICT, identity(ca, ca, NAME)).status_code == httpx.codes.OK


@pytest.mark.parametrize("ends", ["closes", "sends on"])
def test_answer_before_the_body_is_read_and_its_connection_ends(
    mutual: Server, ca: trustme.CA, ends: str
) -> None:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n"
    who = identity(ca, ca, NAME)
    with connected(mutual) as plain, who.wrap_socket(plain, server_hostname=HOST) as talking:
        talking.sendall(head.encode())
        assert talking.recv(65536).startswith(b"HTTP/1.1 413 ")
        with contextlib.suppress(OSError):
            if ends == "sends on":
                talking.sendall(bytes(17_000_000))
                while talking.recv(65536):
                    pass
    assert all(line["level"] == "info" for line in mutual.log_lines())


def test_client_that_does_not_read_its_end_of_the_session_harms_nobody(
    mutual: Server, ca: trustme.CA
) -> None:
    who = identity(ca, ca, NAME)
    with connected(mutual) as plain, who.wrap_socket(plain, server_hostname=HOST) as talking:
        talking.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        plain_end = talking.detach()
        socket.close(plain_end)
    assert ask(mutual, PREDICT, who).status_code == httpx.codes.OK
    assert all(line["level"] == "info" for line in mutual.log_lines())


@contextlib.contextmanager
def worker(known: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    """One worker without its supervisor: this process hands it connections."""
    monkeypatch.setattr("service.server.worker.HANDSHAKE_TIMEOUT_S", 0.2)
    closed = shared_counts(1)
    load = partial(App, settings(known), 0)
    gc.collect()  # the child must not collect interpreters of other tests, whose threads it lacks
    started = WorkerProcess(0, closed, lambda n, channel: run_worker(load, n, channel, closed))
    try:
        started.channel.setblocking(True)
        assert started.receive() == READY
        started.channel.setblocking(False)
        yield started
    finally:
        started.kill()
        started.join()


def test_connections_are_counted_whatever_becomes_of_their_handshake(
    files: Files, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker(files.settings(), monkeypatch) as serving, contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(5)]
        for pair in pairs:
            for end in pair:
                stack.enter_context(end)
            assert serving.hand_over(pair[1])
            pair[1].close()
        slow, plain, gone, good, left = (client for client, _ in pairs)
        slow.sendall(b"\x16\x03\x01\x02\x00")
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        gone.close()
        talking = trust(ca).wrap_socket(good, server_hostname=HOST)
        stack.enter_context(trust(ca).wrap_socket(left, server_hostname=HOST)).close()
        assert come_true(lambda: serving.open_connections == 1)
        talking.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert talking.recv(65536).startswith(b"HTTP/1.1 200 ")
        talking.close()
        assert come_true(lambda: serving.open_connections == 0)


def test_server_with_an_open_handshake_and_a_silent_client_ends(
    files: Files, ca: trustme.CA, tmp_path: Path
) -> None:
    known = files.settings_without_clients()
    with (
        serve(tmp_path, models=MODEL, workers=1, **known) as server,
        connected(server) as half,
        connected(server) as idle,
    ):
        half.sendall(b"\x16\x03\x01\x02\x00")
        talking = trust(ca).wrap_socket(idle, server_hostname=HOST)
        talking.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert talking.recv(65536).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < PATIENCE_S / 2
        assert "Traceback" not in server.log.read_text()
        talking.close()


# The name in a certificate.


class Shown:
    """A connection's transport, as far as it is asked for the certificate."""

    def __init__(self, certificate: object) -> None:
        self._certificate = certificate

    def get_extra_info(self, name: str) -> object:
        assert name == "peercert"
        return self._certificate


def subject(*names: str) -> dict[str, object]:
    return {"subject": tuple((("commonName", name),) for name in names)}


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (None, ""),
        ({}, ""),
        (subject("camera 7"), "camera 7"),
        (subject("a\nb\x1b[31m\u202e"), "a?b?[31m?"),
        (subject("x" * 1000), "x" * 64),
        ({"subject": (), "subjectAltName": (("DNS", "camera.example.org"),)}, "camera.example.org"),
        ({"subject": ()}, "unnamed"),
        (subject(""), "unnamed"),
    ],
)
def test_client_is_named_in_plain_and_bounded_text(certificate: object, name: str) -> None:
    assert client_name(Shown(certificate)) == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + SAMPLE, b"401"),
    ],
)
def test_answer_that_ends_a_connection_can_be_read(
    mutual: Server, ca: trustme.CA, sent: bytes, status: bytes
) -> None:
    before = mutual.log.read_text()
    with (
        connected(mutual) as connection,
        trust(ca).wrap_socket(connection, server_hostname=HOST) as client,
    ):
        client.sendall(sent)
        came = b""
        while not came.endswith(b"}"):
            came += client.recv(65536)
        assert came.startswith(b"HTTP/1.1 " + status)
        assert b"\r\nconnection: close\r\n" in came
    assert "Traceback" not in mutual.log.read_text().removeprefix(before)
