"""The compose file: every container is hardened, every service is there, and secrets come from outside."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tailor.local.layout import SERVICES, WITH_DATABASE
from tailor.storage.buckets import ACCESS

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
CONTAINERS: dict[str, Any] = COMPOSE["services"]
ONCE = {name for name in CONTAINERS if name.startswith("init-")} | {"minio-volume"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_hardened(name: str) -> None:
    container = CONTAINERS[name]
    assert container["image"].rpartition(":")[2] not in ("", "latest"), "the image is pinned"
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["user"]
    assert {"cpus", "memory", "pids"} <= set(container["deploy"]["resources"]["limits"])
    assert "privileged" not in container


@pytest.mark.parametrize("name", sorted(set(CONTAINERS) - ONCE))
def test_every_lasting_container_has_a_health_check_and_comes_back(name: str) -> None:
    assert CONTAINERS[name]["healthcheck"]["test"]
    assert CONTAINERS[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_built_from_the_one_definition_and_runs_read_only(service: str) -> None:
    container = CONTAINERS[service]
    assert container["build"]["dockerfile"] == "deploy/Dockerfile"
    assert container["build"]["args"]["SERVICE"] == service
    assert container["read_only"] is True
    assert container["user"] == "10001:10001"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_its_own_secrets_and_no_others(service: str) -> None:
    container = CONTAINERS[service]
    # Git ignores the folder of the keys. The teacher's are there only if there is one.
    teacher = [{"path": "deploy/secrets/teacher.env", "required": False}] if service == "synthetic" else []
    assert container["env_file"] == [f"deploy/secrets/{service}.env", *teacher]
    sources = {secret if isinstance(secret, str) else secret["source"] for secret in container["secrets"]}
    worker = {"training-worker.pem"} if service == "training" else set()
    assert sources == {"trust.json", f"{service}.pem"} | worker


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_shares_a_network_only_with_stores_that_it_may_use(service: str) -> None:
    networks = set(CONTAINERS[service]["networks"])
    assert ("objects" in networks) == bool(ACCESS[service])
    assert ("databases" in networks) == (service in WITH_DATABASE)


def test_kafka_admits_nobody_without_a_user_and_gives_publishers_a_listener() -> None:
    kafka = CONTAINERS["kafka"]["environment"]
    assert kafka["KAFKA_ALLOW_EVERYONE_IF_NO_ACL_FOUND"] == "false"
    assert "ANONYMOUS" not in kafka["KAFKA_SUPER_USERS"]
    protocols = dict(pair.split(":") for pair in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert set(protocols) == {"INTERNAL", "PUBLISHERS", "CONTROLLER"}
    assert set(protocols.values()) == {"SASL_PLAINTEXT"}
    assert CONTAINERS["kafka"]["ports"] == ["127.0.0.1:9092:9092"]
    assert "PUBLISHERS://127.0.0.1:9092" in kafka["KAFKA_ADVERTISED_LISTENERS"]


def test_only_services_that_use_kafka_share_a_network_with_it() -> None:
    reaching = {
        name for name, container in CONTAINERS.items() if {*container.get("networks", [])} & {"events", "publishers"}
    }
    assert reaching == {*SERVICES, "kafka", "init-topics"} - {"console"}
    assert [name for name, container in CONTAINERS.items() if "publishers" in container.get("networks", [])] == [
        "kafka"
    ]


def test_no_network_of_the_stores_leads_out_and_no_port_is_open_to_others() -> None:
    for network in ("events", "objects", "databases", "calls"):
        assert COMPOSE["networks"][network]["internal"] is True
    for name, container in CONTAINERS.items():
        for port in container.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_no_secret_is_written_in_the_file() -> None:
    for name, container in CONTAINERS.items():
        for setting in container.get("environment", {}):
            assert not setting.endswith(("PASSWORD", "SECRET_KEY", "SECRET", "DATABASE_URL")), f"{name}: {setting}"


def test_only_evaluation_gets_a_way_out_to_external_models_and_only_if_asked() -> None:
    path = ROOT / "deploy" / "compose.external-models.yaml"
    external: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(external["services"]) == {"evaluation"}
    assert set(external["services"]["evaluation"]["networks"]) == set(external["networks"])
    assert not set(external["networks"]) & set(COMPOSE["networks"])
    # Git ignores the folder of the keys.
    assert external["services"]["evaluation"]["env_file"] == ["deploy/secrets/external-models.env"]


def test_only_a_profile_opens_a_way_to_a_teacher_and_only_for_synthetic() -> None:
    members = {
        network: {name for name, container in CONTAINERS.items() if network in container.get("networks", [])}
        for network in COMPOSE["networks"]
    }
    assert members["teacher"] == {"synthetic", "teacher-proxy"} and COMPOSE["networks"]["teacher"]["internal"] is True
    assert members["way-out"] == {"teacher-proxy"}
    assert CONTAINERS["teacher-proxy"]["profiles"] == ["teacher"]
    assert [name for name, container in CONTAINERS.items() if "profiles" in container] == ["teacher-proxy"]


def test_the_proxy_to_a_teacher_passes_nothing_but_the_addresses_that_are_named() -> None:
    container = CONTAINERS["teacher-proxy"]
    (volume,) = container["volumes"]
    source, _, flags = volume.split(":")
    lines = [line.strip() for line in (ROOT / source).read_text(encoding="utf-8").splitlines()]
    places = [
        place for place, line in enumerate(lines) if line.startswith("<") and "Module" not in line and line[1] != "/"
    ]
    granted = {lines[place] for place in places if lines[place + 1] == "Require all granted"}
    assert flags == "ro" and {lines[place + 1] for place in places} == {"Require all granted", "Require all denied"}
    assert granted == {
        f'<Proxy "{form}">'
        for name in ("TEACHER", "JUDGE")
        for form in (f"${{{name}_ADDRESS}}", f"http://${{{name}_ADDRESS}}/*")
    }
    # Without an address, that of no host.
    assert all(":-" in address and ".invalid:" in address for address in container["environment"].values())


def test_only_evaluation_gets_a_way_out_to_a_judge_model_and_only_if_asked() -> None:
    judge: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.judge.yaml").read_text(encoding="utf-8"))
    assert set(judge["services"]) == {"evaluation"}
    assert set(judge["services"]["evaluation"]["networks"]) == set(judge["networks"])
    assert not set(judge["networks"]) & set(COMPOSE["networks"])
    assert judge["services"]["evaluation"]["env_file"] == ["deploy/secrets/judge.env"]
