"""The check of the images: it builds what compose and the README build, and starts containers as compose does."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import check_images
from deploy.check_images import CUDA, Image, images, run_command, substitute
from tailor.local.layout import SERVICES

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def image(name: str) -> Image:
    """One of the images, by name."""
    (match,) = (image for image in images(COMPOSE) if image.name == name)
    return match


def test_every_image_is_checked() -> None:
    assert {image.name for image in images(COMPOSE)} == {*SERVICES, "init", *CUDA}


def test_a_variable_of_compose_is_its_default_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAILOR_SET", raising=False)
    assert substitute("a-${TAILOR_SET:-cpu}") == "a-cpu"
    monkeypatch.setenv("TAILOR_SET", "cuda")
    assert substitute("a-${TAILOR_SET:-cpu}") == "a-cuda"


def test_an_argument_without_a_value_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    for name in ("registry", "training-cuda"):
        assert image(name).arguments["PIP_INDEX_URL"] == "https://mirror.example/simple"
        assert image(name).arguments["PIP_FIND_LINKS"] == ""


@pytest.mark.parametrize("name", CUDA)
def test_the_readme_names_the_arguments_of_the_images_for_gpus(name: str) -> None:
    service, packages, system, _ = CUDA[name]
    page = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8").replace(" \\\n ", "")
    (line,) = (line for line in page.splitlines() if f"SERVICE={service} --build-arg SET=cuda" in line)
    assert f"PACKAGES={packages}" in line
    assert not system or f'SYSTEM_PACKAGES="{system}"' in line


def test_a_service_starts_without_network_and_with_its_own_secrets(tmp_path: Path) -> None:
    command = " ".join(run_command(image("training"), tmp_path))
    assert "--network none --read-only --cap-drop ALL" in command
    assert f"--env-file {tmp_path}/training.env" in command
    assert f"{tmp_path}/training-worker.pem:/run/secrets/worker.pem:ro" in command
    assert "${" not in command


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_can_be_started(tmp_path: Path, name: str) -> None:
    assert run_command(image(name), tmp_path)[-1] == image(name).tag


def test_a_container_that_ends_is_reported_with_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = {"run": "id\n", "logs": "Traceback\nImportError: torch", "inspect": "exited 1", "rm": ""}
    monkeypatch.setattr(check_images, "docker", lambda command, *_rest: answers[command])
    with pytest.raises(SystemExit, match="ImportError: torch"):
        check_images.start(image("registry"), tmp_path)


def test_a_service_that_waits_is_a_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = {"run": "id\n", "logs": '{"waiting_for": "database"}', "inspect": "running 0", "rm": ""}
    monkeypatch.setattr(check_images, "docker", lambda command, *_rest: answers[command])
    assert check_images.start(image("registry"), tmp_path) == "waits for database"
