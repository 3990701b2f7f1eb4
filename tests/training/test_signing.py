"""What is signed verifies, and nothing else does."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tqdm", reason="training needs the train extra")
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from service.server.app import App
from service.settings import Settings
from tests.conftest import SHIPPED_MODELS
from tests.extras import needs_extra
from training.__main__ import main
from training.signing import SIGNATURE_FILE

pytestmark = pytest.mark.filterwarnings("ignore")  # what the library's own dependencies warn of


@pytest.fixture(scope="module", autouse=True)
def _extra() -> None:
    needs_extra("model_signing", "sign")


def write_keys(folder: Path) -> tuple[Path, Path]:
    """A private key and its public one."""
    made = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "sign.key", folder / "sign.pub"
    form = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    private.write_bytes(made.private_bytes(*form))
    public.write_bytes(
        made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def signed(artifact_folder: Path, keys: tuple[Path, Path]) -> Path:
    """A signed artifact that a test may damage."""
    assert main(["sign", str(artifact_folder), "--key", str(keys[0])]) == 0
    return artifact_folder


def verified(folder: Path, key: Path, *options: str) -> bool:
    return bool(main(["verify", str(folder), "--key", str(key), *options]) == 0)


def test_signed_artifact_verifies_and_is_served(signed: Path, keys: tuple[Path, Path]) -> None:
    assert verified(signed, keys[1])
    App(Settings(models_dir=signed.parents[1], workers=1)).close()


def test_cards_and_pictures_may_be_edited(signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / "README.md").write_text("another card")
    (signed / "curves.png").unlink()
    assert verified(signed, keys[1])


@pytest.mark.parametrize("file", ["model.tflite", "model.keras", "sample.png"])
@pytest.mark.parametrize("change", ["changed", "missing"])
def test_file_that_serving_takes_is_named_once_it_is_not_the_signed_one(
    signed: Path,
    keys: tuple[Path, Path],
    file: str,
    change: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = signed / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    if change == "changed":
        path.write_bytes(content)
    assert not verified(signed, keys[1])
    assert file in capsys.readouterr().err


def test_manifest_with_another_file_does_not_verify(
    signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = signed / "manifest.json"
    (signed / "other.tflite").write_bytes((signed / "model.tflite").read_bytes())
    manifest.write_text(manifest.read_text().replace("model.tflite", "other.tflite"))
    assert not verified(signed, keys[1])
    assert "manifest.json" in capsys.readouterr().err


def test_image_for_cpus_verifies_without_the_networks_for_gpus(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    (signed / "model.keras").unlink()
    assert verified(signed, keys[1], "--device", "cpu")
    assert not verified(signed, keys[1], "--device", "gpu")


def test_signed_artifact_does_not_verify_as_another(signed: Path, keys: tuple[Path, Path]) -> None:
    other = signed.rename(signed.with_name("2"))
    assert not verified(other, keys[1])


def test_folder_of_models_verifies_with_every_model_in_it(
    signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    models = signed.parents[1]
    assert verified(models, keys[1])
    shutil.copytree(SHIPPED_MODELS / "denoiser", models / "denoiser")
    assert not verified(models, keys[1])
    assert "denoiser/1 is not signed" in capsys.readouterr().err


def test_folder_without_a_model_does_not_verify(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    assert not verified(tmp_path, keys[1])


@pytest.mark.slow
def test_verifying_takes_nothing_that_trains(signed: Path, keys: tuple[Path, Path]) -> None:
    program = (
        "import sys\n"
        "for name in ('keras', 'tensorflow', 'matplotlib', 'tqdm', 'h5py', 'sklearn', 'skimage'):\n"
        "    sys.modules[name] = None\n"
        "from training.__main__ import main\n"
        f"sys.exit(main(['verify', {str(signed)!r}, '--key', {str(keys[1])!r}]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_another_key_does_not_verify(signed: Path, tmp_path: Path) -> None:
    assert not verified(signed, write_keys(tmp_path)[1])


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe", b'{"mediaType": "x"}'])
def test_without_a_signature_nothing_verifies(
    signed: Path,
    keys: tuple[Path, Path],
    content: bytes | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (signed / SIGNATURE_FILE).unlink()
    if content is not None:
        (signed / SIGNATURE_FILE).write_bytes(content)
    assert not verified(signed, keys[1])
    assert SIGNATURE_FILE in capsys.readouterr().err


def test_damaged_artifact_is_not_signed(
    artifact_folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (artifact_folder / "model.tflite").write_bytes(b"damaged")
    assert main(["sign", str(artifact_folder), "--key", str(keys[0])]) == 1
    assert "model.tflite" in capsys.readouterr().err
    assert not (artifact_folder / SIGNATURE_FILE).exists()


def test_key_of_another_kind_is_one_line_that_does_not_show_it(
    artifact_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text("open-sesame")
    assert main(["sign", str(artifact_folder), "--key", str(key)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "elliptic curve" in line
    assert "sesame" not in line


@pytest.mark.slow
def test_without_the_extra_the_command_says_what_to_install(
    artifact_folder: Path, keys: tuple[Path, Path]
) -> None:
    program = (
        "import sys\n"
        "sys.modules['model_signing'] = None\n"
        "from training.__main__ import main\n"
        f"sys.exit(main(['sign', {str(artifact_folder)!r}, '--key', {str(keys[0])!r}]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert "requirements/sign.lock" in line
