"""The proxy that deploy/README.md shows, in front of a server."""

import re
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest
import trustme

from tests.certificates import HOST, identity, trust
from tests.documents import read
from tests.programs import program
from tests.server import free_port, serve
from tests.service.protocols.test_native import PNG, SAMPLE

pytestmark = pytest.mark.slow

MODEL = "fashion-mnist-mlp"
PATIENCE_S = 20  # reached only where a test fails
(SHOWN,) = re.findall(r"^```\n(defaults.*?)^```$", read("deploy/README.md"), re.M | re.S)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, ca: trustme.CA) -> Iterator[str]:
    """The URL of HAProxy, set up as it is shown but for its port and its files."""
    haproxy, folder, port = program("haproxy"), tmp_path_factory.mktemp("proxy"), free_port()
    ca.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(folder / "vitrine.pem"))
    ca.cert_pem.write_to_path(str(folder / "ca.crt"))
    with serve(folder, models=MODEL, workers=1) as server:
        text = SHOWN.replace(":443", f"{HOST}:{port}").replace("/etc/haproxy", str(folder))
        text = text.replace("127.0.0.1:3000", server.url.removeprefix("http://"))
        file = folder / "haproxy.cfg"
        file.write_text(text)
        with subprocess.Popen([haproxy, "-f", str(file)], stderr=subprocess.DEVNULL) as process:
            try:
                yield wait_for(f"https://{HOST}:{port}", identity(ca, ca, "me"))
            finally:
                process.terminate()


def wait_for(url: str, who: object) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", verify=who).is_success:  # type: ignore[arg-type]
                return url
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail("the proxy is not ready")


def test_client_with_a_certificate_is_answered(proxy: str, ca: trustme.CA) -> None:
    with httpx.Client(verify=identity(ca, ca, "me")) as client:
        answer = client.post(f"{proxy}/v1/models/{MODEL}:predict", content=SAMPLE, headers=PNG)
    assert answer.json()["predictions"][0]["label"] == "Trouser"


def test_client_without_a_certificate_is_not(proxy: str, ca: trustme.CA) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{proxy}/readyz", verify=trust(ca))
