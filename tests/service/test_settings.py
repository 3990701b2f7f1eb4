import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import SettingsError
from service.machine import cpu_limit
from service.settings import PREFIX, Settings, read_settings
from tests.conftest import SHIPPED_MODELS

# What Kubernetes sets in a pod for Services named vitrine and vitrine-metrics.
KUBERNETES = {
    "VITRINE_SERVICE_HOST": "10.0.0.11",
    "VITRINE_SERVICE_PORT": "3000",
    "VITRINE_SERVICE_PORT_HTTP": "3000",
    "VITRINE_PORT": "tcp://10.0.0.11:3000",
    "VITRINE_PORT_3000_TCP": "tcp://10.0.0.11:3000",
    "VITRINE_PORT_3000_TCP_PROTO": "tcp",
    "VITRINE_PORT_3000_TCP_PORT": "3000",
    "VITRINE_PORT_3000_TCP_ADDR": "10.0.0.11",
    "VITRINE_METRICS_SERVICE_HOST": "10.0.0.12",
    "VITRINE_METRICS_SERVICE_PORT": "9090",
    "VITRINE_METRICS_SERVICE_PORT_HTTP": "9090",
    "VITRINE_METRICS_PORT": "tcp://10.0.0.12:9090",
    "VITRINE_METRICS_PORT_9090_TCP": "tcp://10.0.0.12:9090",
    "VITRINE_METRICS_PORT_9090_TCP_ADDR": "10.0.0.12",
    "VITRINE_DNS_PORT_53_UDP": "udp://10.0.0.13:53",
}


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings(environment)
    return str(caught.value)


def test_empty_environment_gives_the_defaults() -> None:
    settings = read_settings({})
    assert settings == Settings()
    assert settings.models_dir == SHIPPED_MODELS
    assert settings.models == settings.plugins == ()
    assert settings.default_models == {}
    assert settings.device == "auto"
    assert settings.max_denoise_pixels == 4_000_000
    assert settings.workers == cpu_limit()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("models_dir", "/srv/models", Path("/srv/models")),
        ("models", "fashion-mnist", ("fashion-mnist",)),
        ("models", "a,b , c,", ("a", "b", "c")),
        ("models", "", ()),
        ("models", "fashion-mnist/2,denoiser", ("fashion-mnist/2", "denoiser")),
        ("default_models", "", {}),
        ("default_models", "classify=fashion-mnist", {"classify": "fashion-mnist"}),
        ("default_models", "classify=a, denoise = b,", {"classify": "a", "denoise": "b"}),
        ("plugins", "", ()),
        ("plugins", "my_tasks, lab.tasks.depth", ("my_tasks", "lab.tasks.depth")),
        ("device", "gpu", "gpu"),
        ("workers", "3", 3),
        ("queue_limit", "10", 10),
        ("max_batch_size", "8", 8),
        ("max_image_bytes", "1000", 1000),
        ("max_image_pixels", "2000", 2000),
        ("max_denoise_pixels", "300", 300),
        ("max_images_per_request", "4", 4),
        ("max_request_bytes", "5000", 5000),
        ("request_timeout_s", "0.5", 0.5),
        ("drain_s", "7.5", 7.5),
        ("drain_s", "0", 0),
        ("api_tokens_file", "/etc/tokens", Path("/etc/tokens")),
        ("cors_origins", "", ()),
        ("cors_origins", "*", ("*",)),
        (
            "cors_origins",
            "https://shop.example, http://localhost:8080,http://[::1]:3000",
            ("https://shop.example", "http://localhost:8080", "http://[::1]:3000"),
        ),
        ("log_requests", "false", False),
        ("log_requests", "0", False),
        ("log_format", "json", "json"),
    ],
)
def test_setting_is_read_by_its_prefixed_name(name: str, text: str, value: object) -> None:
    settings = read_settings({PREFIX + name.upper(): text})
    assert getattr(settings, name) == value
    assert settings.model_dump(exclude={name}) == Settings().model_dump(exclude={name})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("VITRINE_MODELS", "Fashion-MNIST"),
        ("VITRINE_MODELS", "fashion-mnist/latest"),
        ("VITRINE_MODELS", "fashion-mnist/1/2"),
        ("VITRINE_MODELS", "fashion-mnist/"),
        ("VITRINE_MODELS", "../models"),
        ("VITRINE_DEFAULT_MODELS", "fashion-mnist"),
        ("VITRINE_DEFAULT_MODELS", "classify="),
        ("VITRINE_DEFAULT_MODELS", "=fashion-mnist"),
        ("VITRINE_DEFAULT_MODELS", "classify=a=b"),
        ("VITRINE_DEFAULT_MODELS", "classify=fashion-mnist/1"),
        ("VITRINE_DEFAULT_MODELS", "classify=a,classify=b"),
        ("VITRINE_PLUGINS", "my-tasks"),
        ("VITRINE_PLUGINS", "tasks.py/"),
        ("VITRINE_PLUGINS", "tasks..depth"),
        ("VITRINE_DEVICE", "tpu"),
        ("VITRINE_DEVICE", ""),
        ("VITRINE_WORKERS", "0"),
        ("VITRINE_WORKERS", "-1"),
        ("VITRINE_WORKERS", "two"),
        ("VITRINE_WORKERS", "1.5"),
        ("VITRINE_QUEUE_LIMIT", "0"),
        ("VITRINE_MAX_BATCH_SIZE", "0"),
        ("VITRINE_MAX_IMAGE_BYTES", "10MB"),
        ("VITRINE_MAX_IMAGE_BYTES", "0"),
        ("VITRINE_MAX_IMAGE_PIXELS", "0"),
        ("VITRINE_DECODE_MEMORY_BYTES", "0"),
        ("VITRINE_MAX_DENOISE_PIXELS", "0"),
        ("VITRINE_MAX_IMAGES_PER_REQUEST", "0"),
        ("VITRINE_MAX_REQUEST_BYTES", "0"),
        ("VITRINE_REQUEST_TIMEOUT_S", "0"),
        ("VITRINE_REQUEST_TIMEOUT_S", "inf"),
        ("VITRINE_REQUEST_TIMEOUT_S", "30s"),
        ("VITRINE_KEEP_ALIVE_S", "0"),
        ("VITRINE_KEEP_ALIVE_S", "inf"),
        ("VITRINE_HANG_TIMEOUT_S", "-1"),
        ("VITRINE_HANG_TIMEOUT_S", "inf"),
        ("VITRINE_DRAIN_S", "-1"),
        ("VITRINE_DRAIN_S", "inf"),
        ("VITRINE_RATE_LIMIT_PER_S", "0"),
        ("VITRINE_RATE_LIMIT_PER_S", "inf"),
        ("VITRINE_CORS_ORIGINS", "shop.example"),
        ("VITRINE_CORS_ORIGINS", "https://shop.example/"),
        ("VITRINE_CORS_ORIGINS", "https://shop.example/path"),
        ("VITRINE_CORS_ORIGINS", "https://Shop.example"),
        ("VITRINE_CORS_ORIGINS", "https://*.shop.example"),
        ("VITRINE_CORS_ORIGINS", "https://shop.example:443"),
        ("VITRINE_CORS_ORIGINS", "http://shop.example:80"),
        ("VITRINE_CORS_ORIGINS", "ftp://shop.example"),
        ("VITRINE_CORS_ORIGINS", "null"),
        ("VITRINE_CORS_ORIGINS", "*,https://shop.example"),
        ("VITRINE_CORS_ORIGINS", "https://a.example https://b.example"),
        ("VITRINE_LOG_REQUESTS", "maybe"),
        ("VITRINE_LOG_FORMAT", "xml"),
    ],
)
def test_unusable_value_is_named_and_shown(name: str, text: str) -> None:
    needed = {"VITRINE_API_TOKENS_FILE": "tokens"}  # by VITRINE_RATE_LIMIT_PER_S
    message = refusal(needed | {name: text})
    assert message.startswith(f"{name}: ")
    assert message.endswith(f"got {text!r}")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("VITRINE_MODELS", "a/b", "expected name or name/version, separated by commas"),
        ("VITRINE_DEFAULT_MODELS", "a", "expected verb=name,verb=name with each verb once"),
        (
            "VITRINE_CORS_ORIGINS",
            "shop.example",
            "expected * or origins like https://shop.example, in lower case",
        ),
        ("VITRINE_PLUGINS", "a/b", "expected names of Python modules, separated by commas"),
    ],
)
def test_malformed_list_is_answered_with_the_expected_form(
    name: str, text: str, expected: str
) -> None:
    assert refusal({name: text}) == f"{name}: {expected}, got {text!r}"


def test_rate_is_limited_by_token_or_not_at_all() -> None:
    asked = {"VITRINE_RATE_LIMIT_PER_S": "2.5"}
    expected = "VITRINE_RATE_LIMIT_PER_S: expected VITRINE_API_TOKENS_FILE, too: "
    assert refusal(asked).startswith(expected)
    settings = read_settings(asked | {"VITRINE_API_TOKENS_FILE": "tokens"})
    assert settings.rate_limit_per_s == 2.5


def test_all_unusable_values_are_named_at_once() -> None:
    message = refusal({"VITRINE_WORKERS": "0", "VITRINE_DEVICE": "tpu"})
    assert "VITRINE_WORKERS: " in message
    assert "VITRINE_DEVICE: " in message


@pytest.mark.parametrize(
    "name", ["VITRINE_WORKER", "VITRINE_", "VITRINE_Workers", "VITRINE_HOST", "VITRINE_MODEL_DIR"]
)
def test_unknown_name_is_named(name: str) -> None:
    message = refusal({name: "1"})
    assert message.startswith(f"unknown setting {name}: expected one of VITRINE_API_TOKENS_FILE, ")


def test_all_unknown_names_are_named_at_once() -> None:
    message = refusal({"VITRINE_B": "1", "VITRINE_A": "1", "VITRINE_WORKERS": "1"})
    assert message.startswith("unknown setting VITRINE_A, VITRINE_B: ")


def test_other_variables_are_not_settings() -> None:
    others = {"PATH": "/bin", "WORKERS": "9", "MY_VITRINE_WORKERS": "9", "VITRINES": "9"}
    assert read_settings(others) == Settings()


def test_variables_that_kubernetes_injects_are_not_settings() -> None:
    assert read_settings(KUBERNETES) == Settings()


@pytest.mark.parametrize("port", ["8080", "", "http"])
def test_port_that_is_no_address_is_an_unknown_setting(port: str) -> None:
    assert refusal({"VITRINE_PORT": port}).startswith("unknown setting VITRINE_PORT: ")


@pytest.mark.parametrize("name", ["VITRINE_METRICS_PORT", "VITRINE_WORKERS_PORT"])
def test_port_of_another_service_is_an_address(name: str) -> None:
    assert read_settings({name: "tcp://10.0.0.1:9090"}) == Settings()
    assert refusal({name: "9090"}).startswith(f"unknown setting {name}: ")


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRINE_QUEUE_LIMIT", "7")
    assert read_settings({}) == Settings()
    assert read_settings().queue_limit == 7


@pytest.mark.parametrize("name", ["VITRINE_PORT_3000", "VITRINE_SERVICE", "VITRINE_PORT_TCP"])
def test_name_that_kubernetes_does_not_inject_is_an_unknown_setting(name: str) -> None:
    assert refusal({name: "1"}).startswith(f"unknown setting {name}: ")


def test_setting_that_is_misspelt_in_code_is_an_error() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Settings.model_validate({"worker": 2})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read_settings({}).workers = 2


def test_cpu_limit_is_at_least_one_and_at_most_the_cores() -> None:
    assert 1 <= cpu_limit() <= (os.cpu_count() or 1)
