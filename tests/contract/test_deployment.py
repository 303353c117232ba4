"""The files that run inferway in containers: consistent with each other and with what is promised of them."""

import importlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferway_inference.settings import InferenceSettings

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("gateway", "inference", "registry")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
ENV = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env").read_text(), re.MULTILINE))
OBSERVABILITY = ROOT / "deploy/observability"


def dockerfile(service: str) -> str:
    return (ROOT / f"deploy/docker/{service}.Dockerfile").read_text()


def load(path: str) -> Any:
    return yaml.safe_load((OBSERVABILITY / path).read_text())


def test_every_variable_of_compose_stands_in_env():
    """A variable without a value becomes an empty string, and a service that listens nowhere."""
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))

    assert used == ENV.keys()


def test_images_have_the_version_of_the_package():
    """An old image under a new tag is found out late."""
    assert ENV["INFERWAY_TAG"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_ports_are_published_on_loopback_alone():
    """The services speak plaintext without knowing their callers."""
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]

    assert ENV["PUBLISH_ADDRESS"] == "127.0.0.1"
    assert published
    assert all(port.startswith("${PUBLISH_ADDRESS}:") for port in published)


def test_compose_uses_nothing_that_docker_compose_1_29_refuses():
    """Debian 12 ships that one."""
    assert COMPOSE.keys() <= {"services", "volumes", "x-service"}


@pytest.mark.parametrize("name", sorted(COMPOSE["services"].keys() - set(SERVICES)))
def test_a_foreign_image_is_pinned_and_behind_the_profile(name: str):
    """`docker compose up` must start three services, and the same ones next year."""
    service = COMPOSE["services"][name]

    assert service["profiles"] == ["observability"]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_keeps_its_data_and_stops_gently(name: str):
    """A container is thrown away; the models and snapshots in it must not be."""
    service = COMPOSE["services"][name]

    assert service["volumes"] == [f"{name}:/data"]
    assert name in COMPOSE["volumes"]
    assert int(service["stop_grace_period"].removesuffix("s")) >= 15
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["gateway", "inference"])
def test_who_needs_the_registry_waits_for_its_health(name: str):
    """At the very first start there is no snapshot to begin with."""
    assert COMPOSE["services"][name]["depends_on"] == {"registry": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", SERVICES)
def test_every_setting_in_compose_is_one_of_the_service(name: str):
    """A service refuses to start when it meets a name that it does not know."""
    settings = importlib.import_module(f"inferway_{name}.settings")
    classes = [each for each in vars(settings).values() if getattr(each, "prefix", "") == f"INFERWAY_{name.upper()}_"]
    known = {f"INFERWAY_{name.upper()}_{field}".upper() for each in classes for field in each.model_fields}
    baked = set(re.findall(r"\bINFERWAY_[A-Z_]+(?==)", dockerfile(name)))

    assert baked | COMPOSE["services"][name]["environment"].keys() <= known


def test_the_override_for_gpus_changes_the_worker_alone_and_installs_its_own_lock():
    """A name that is misspelt there is found only on a machine with a GPU."""
    override = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
    [(name, service)] = override["services"].items()
    [(argument, lock)] = service["build"]["args"].items()
    own = {key.lower().removeprefix("inferway_inference_") for key in service["environment"] if "INFERWAY" in key}

    assert name == "inference"
    assert f"ARG {argument}=inference\n" in dockerfile(name)
    assert (ROOT / "requirements" / f"{lock}.txt").is_file()
    assert own == {"device", "gpu_memory_growth"}
    assert own <= InferenceSettings.model_fields.keys()
    assert service["image"] == COMPOSE["services"][name]["image"].replace("inference:", "inference-gpu:")


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_built_in_stages_from_hashed_locks_and_runs_as_nobody_special(name: str):
    """What is not in the last stage cannot be attacked, and what runs as root can."""
    text = dockerfile(name)
    last_stage = text.rpartition("\nFROM ")[2]

    assert text.count("\nFROM ") == 2
    assert f"--require-hashes -r requirements/{name}.txt" in text.replace("${LOCK}", name)
    assert "pip" not in last_stage
    assert re.search(r"^USER inferway$", last_stage, re.MULTILINE)
    assert "RUN --mount" not in text, "needs BuildKit, which a plain `docker build` of Debian has not"


@pytest.mark.parametrize("name", SERVICES)
def test_the_health_check_asks_the_port_that_the_service_listens_on(name: str):
    """Else the container is unhealthy for ever, and whoever waits for it waits."""
    listens = COMPOSE["services"][name]["environment"][f"INFERWAY_{name.upper()}_GRPC_ADDRESS"]
    asked = re.search(r'inferway_chassis\.healthcheck", "127\.0\.0\.1:(\d+)"', dockerfile(name))

    assert asked
    assert listens.rpartition(":")[2] == asked[1]


def test_prometheus_scrapes_where_the_services_serve_metrics():
    """A dashboard without data looks like a system without load."""
    scraped = {job["job_name"]: job["dns_sd_configs"][0] for job in load("prometheus.yaml")["scrape_configs"]}

    assert scraped.keys() == set(SERVICES)
    for name, target in scraped.items():
        address = COMPOSE["services"][name]["environment"][f"INFERWAY_{name.upper()}_METRICS_ADDRESS"]
        assert (target["names"], str(target["port"])) == ([name], address.rpartition(":")[2])


def test_the_collector_uses_only_what_it_defines():
    """It refuses to start on an exporter that does not exist."""
    config = load("otel-collector.yaml")
    for pipeline in config["service"]["pipelines"].values():
        for part, names in pipeline.items():
            assert set(names) <= config[part].keys()


def test_the_collector_hands_spans_to_a_service_of_compose():
    """Names in configurations drift apart silently."""
    host, _, port = load("otel-collector.yaml")["exporters"]["otlp/jaeger"]["endpoint"].partition(":")

    assert host in COMPOSE["services"]
    assert port == "4317"


def test_the_dashboard_asks_the_provisioned_datasource_for_metrics_that_exist():
    """A renamed metric would leave a panel empty without a word."""
    sources = {source["uid"] for source in load("grafana/provisioning/datasources/inferway.yaml")["datasources"]}
    dashboard = json.loads((OBSERVABILITY / "grafana/dashboards/inferway.json").read_text())
    code = "\n".join(path.read_text() for path in sorted((ROOT / "services").rglob("*.py")))
    suffix = re.compile(r"_(total|bucket|sum|count)$")

    assert dashboard["panels"]
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] in sources
        for target in panel["targets"]:
            for metric in re.findall(r"\binferway_\w+", target["expr"]):
                assert f'"{suffix.sub("", metric)}"' in code, metric
