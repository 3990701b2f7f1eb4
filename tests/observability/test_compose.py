"""The Compose file beside the configurations that it mounts; no container is started."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from opentelemetry.sdk import environment_variables
from opentelemetry.sdk.trace import TracerProvider

from service.settings import read_settings
from service.telemetry import tracing
from tests.observability.files import DEPLOY, OBSERVABILITY, read_yaml

SERVICES: dict[str, dict[str, Any]] = read_yaml("compose.yaml")["services"]
ENVIRONMENT: dict[str, str] = SERVICES["vitrine"]["environment"]
CONFIGURED = pytest.mark.parametrize("name", sorted(SERVICES))


def listening(name: str) -> int:
    """The port of a published service inside of its container."""
    return int(SERVICES[name]["ports"][0].split(":")[2])


def mounted(name: str) -> dict[str, Path]:
    """The files of this checkout by their paths in the container."""
    mounts = [volume.split(":") for volume in SERVICES[name].get("volumes", [])]
    return {mount[1]: DEPLOY / mount[0] for mount in mounts if mount[0].startswith("./")}


@CONFIGURED
def test_image_is_of_one_version(name: str) -> None:
    assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+(-cpu)?", SERVICES[name]["image"])


@CONFIGURED
def test_ports_are_open_to_this_machine_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@CONFIGURED
def test_containers_have_no_privileges(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@CONFIGURED
def test_mounted_files_exist_and_are_read_only(name: str) -> None:
    assert all(path.exists() for path in mounted(name).values())
    mounts = [volume for volume in SERVICES[name].get("volumes", []) if volume.startswith("./")]
    assert all(mount.endswith(":ro") for mount in mounts)


def test_published_ports_differ() -> None:
    ports = [port.split(":")[1] for each in SERVICES.values() for port in each.get("ports", [])]
    assert len(set(ports)) == len(ports)


def test_service_is_built_from_its_dockerfile_and_writes_to_tmp_alone() -> None:
    vitrine = SERVICES["vitrine"]
    dockerfile = (DEPLOY / vitrine["build"]["context"] / vitrine["build"]["dockerfile"]).read_text()
    assert re.search(rf"^FROM .* AS {vitrine['build']['target']}$", dockerfile, re.MULTILINE)
    assert re.search(rf"^EXPOSE {listening('vitrine')}$", dockerfile, re.MULTILINE)
    assert vitrine["read_only"] is True
    assert [path.split(":")[0] for path in vitrine["tmpfs"]] == ["/tmp"]
    # Compose only says how often; what is asked is the image's.
    assert "test" not in vitrine["healthcheck"]
    assert re.search(r"^HEALTHCHECK .*\n.*/readyz", dockerfile, re.MULTILINE)


def test_settings_are_known_to_the_service() -> None:
    settings = read_settings(ENVIRONMENT)
    assert settings.workers <= SERVICES["vitrine"]["cpus"]
    stop_after_s = int(SERVICES["vitrine"]["stop_grace_period"].removesuffix("s"))
    assert stop_after_s > settings.request_timeout_s


def test_traces_go_to_the_collector() -> None:
    assert tracing.is_configured(ENVIRONMENT)
    receiver = read_yaml("observability/otel-collector.yml")["receivers"]["otlp"]
    endpoint = urlsplit(ENVIRONMENT["OTEL_EXPORTER_OTLP_ENDPOINT"])
    assert endpoint.hostname in SERVICES
    assert f"0.0.0.0:{endpoint.port}" == receiver["protocols"]["http"]["endpoint"]


def test_opentelemetry_knows_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {name: value for name, value in ENVIRONMENT.items() if name.startswith("OTEL_")}
    assert ours.keys() <= set(vars(environment_variables))
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    share = ours["OTEL_TRACES_SAMPLER_ARG"]
    assert f"TraceIdRatioBased{{{share}}}" in TracerProvider().sampler.get_description()


def test_prometheus_scrapes_the_service_and_finds_its_rules() -> None:
    config = read_yaml("observability/prometheus.yml")
    jobs = {job["job_name"]: job["static_configs"][0] for job in config["scrape_configs"]}
    assert jobs["vitrine"]["targets"] == [f"vitrine:{listening('vitrine')}"]
    assert jobs["prometheus"]["targets"] == [f"localhost:{listening('prometheus')}"]
    files = mounted("prometheus")
    assert files["/etc/prometheus/prometheus.yml"] == OBSERVABILITY / "prometheus.yml"
    assert files["/etc/prometheus/rules"] == OBSERVABILITY / "rules"
    assert config["rule_files"] == ["rules/*.yml"]
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    files = mounted("grafana")
    provisioning = files["/etc/grafana/provisioning"]
    (source,) = _provisioned(provisioning / "datasources", "datasources")
    assert source["url"] == f"http://prometheus:{listening('prometheus')}"
    scraped_every = read_yaml("observability/prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped_every
    (provider,) = _provisioned(provisioning / "dashboards", "providers")
    folder = provider["options"]["path"]
    assert (files[folder] / "vitrine.json").is_file()
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/vitrine.json"


def test_grafana_lets_anybody_look_and_nobody_change() -> None:
    variables = SERVICES["grafana"]["environment"]
    assert variables["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert variables["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert variables["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


def _provisioned(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What all files of a folder provision."""
    loaded = [yaml.safe_load(file.read_text()) for file in folder.iterdir()]
    return [each for file in loaded for each in file[kind]]
