"""Every setting that compose, Kubernetes and the secrets name is one that the service reads."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.make_secrets import make
from tailor.local.layout import SERVICES

ROOT = Path(__file__).parents[3]
# The image's own: it names the service whose code runs.
OF_THE_IMAGE = {"TAILOR_SERVICE"}
# Kubernetes sets it, for a setting that is made of it.
PARTS = {"POD_IP"}


def fields(service: str) -> set[str]:
    """The environment variables that a service's settings have."""
    settings = importlib.import_module(f"services.{service}.settings").Settings
    return {f"TAILOR_{name.upper()}" for name in settings.model_fields}


def kubernetes_names(service: str) -> set[str]:
    """The settings that the manifests give a service, the components and overlays included."""
    names = set()
    for path in (ROOT / "k8s").rglob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if document["kind"] == "Deployment" and document["metadata"]["name"] in (service, "any"):
                for container in document["spec"]["template"]["spec"]["containers"]:
                    names |= {entry["name"] for entry in container.get("env", [])}
    return names


@pytest.mark.parametrize("service", SERVICES)
def test_the_manifests_set_only_what_the_service_reads(service: str) -> None:
    assert kubernetes_names(service) - PARTS <= fields(service)


@pytest.mark.parametrize("service", SERVICES)
def test_the_compose_file_sets_only_what_the_service_reads(service: str) -> None:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert set(compose["services"][service]["environment"]) - OF_THE_IMAGE <= fields(service)


@pytest.mark.parametrize("service", SERVICES)
def test_the_secrets_are_what_the_services_settings_take(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (make(tmp_path) / f"{service}.env").read_text(encoding="utf-8").splitlines()
    for line in lines:
        name, _, value = line.partition("=")
        assert name in fields(service)
        monkeypatch.setenv(name, value)
    importlib.import_module(f"services.{service}.settings").Settings()


def test_every_setting_that_all_services_share_is_read_by_one() -> None:
    shared = {line.partition("=")[0] for line in (ROOT / "k8s/base/common/settings.env").read_text().splitlines()}
    for path in (ROOT / "k8s").rglob("settings.yaml"):
        shared |= set(yaml.safe_load(path.read_text(encoding="utf-8"))["data"])
    assert shared <= set().union(*(fields(service) for service in SERVICES))
