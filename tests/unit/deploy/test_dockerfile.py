"""The image definition: knows every service, names no place packages come from, lets nothing phone home."""

import re
import tomllib
from pathlib import Path

import pytest

from tailor.local.environment import NOTHING_PHONES_HOME
from tailor.local.layout import SERVICES

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("service", SERVICES)
def test_the_dockerfile_names_every_service_and_each_has_an_extra(service: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert service in DOCKERFILE
    assert service in project["optional-dependencies"]


def test_packages_are_installed_at_the_locks_versions() -> None:
    assert "pip install" not in DOCKERFILE
    (line,) = (line for line in DOCKERFILE.splitlines() if "deploy.install --venv" in line)
    assert '--extra "${SERVICE}" --set "${SET}"' in line


def test_the_build_context_has_what_the_installer_reads() -> None:
    context = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {"!pyproject.toml", "!requirements", "!deploy"} <= set(context)


def test_no_registry_or_index_is_named() -> None:
    assert not re.search(r"https?://(?!127\.0\.0\.1)", DOCKERFILE)


def test_the_image_runs_as_an_ordinary_user_with_a_health_check_and_the_topics() -> None:
    assert "USER 10001:10001" in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE
    assert "COPY proto/ proto/" in DOCKERFILE


def test_no_image_phones_home() -> None:
    for name, value in NOTHING_PHONES_HOME.items():
        assert f"{name}={value}" in DOCKERFILE


def test_the_build_context_leaves_secrets_out() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored.index("deploy/secrets") > ignored.index("!deploy"), "the later line decides"


def test_the_images_have_every_module_of_deploy_that_their_programs_import() -> None:
    copied = set(re.findall(r"deploy/(\w+)\.py", DOCKERFILE.split(" AS image")[1]))
    imported = {
        name
        for module in copied
        for name in re.findall(
            r"^from deploy\.(\w+) import", (ROOT / "deploy" / f"{module}.py").read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert imported - {"init"} <= copied
