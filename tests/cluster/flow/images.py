"""The images of the flow: those of the local docker, or built by the command of deploy/README.md, into the node without a second copy.

An image that docker has already is taken as it is and stays there. Another one is built, and removed from docker once the node has it.
BuildKit keeps its cache (`docker builder prune`).
"""

import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.check_images import CUDA, Image, build, docker, images
from tailor.cli.progress import Report
from tests.cluster.node import Node

ROOT = Path(__file__).parents[3]
# They have torch; built first, they leave the most room for the others' builds.
LARGE = ("training", "inference")


@dataclass(frozen=True)
class LoadedImage:
    """An image in the node: its size as docker counts it, and how long its build and its way into the node took."""

    bytes: int
    build_seconds: float
    load_seconds: float


def find_builds(references: Iterable[str]) -> dict[str, Image]:
    """How compose builds each image of the manifests, the large ones first. Raises KeyError for one that it does not build."""
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    known = {image.name: image for image in images(compose) if image.name not in CUDA}
    by_reference = {reference: known[name_of(reference)] for reference in references}
    return dict(sorted(by_reference.items(), key=lambda item: (item[1].name not in LARGE, item[1].name)))


def name_of(reference: str) -> str:
    """The last part of an image's name, without its tag."""
    return reference.rpartition("/")[2].partition(":")[0]


def load_images(node: Node, references: Iterable[str], now: Report) -> Mapping[str, LoadedImage]:
    """Load every image of the manifests under its name there, and return them by their short names. Blocks for minutes per build."""
    return {image.name: _load(node, reference, image, now) for reference, image in find_builds(references).items()}


def _load(node: Node, reference: str, image: Image, now: Report) -> LoadedImage:
    started, is_own = time.monotonic(), not _exists(image.tag)
    if is_own:
        now(f"building {image.tag}")
        _build(image)
    built = time.monotonic()
    now(f"loading {reference}")
    try:
        size = int(docker("image", "inspect", "--format", "{{.Size}}", image.tag))
        docker("tag", image.tag, reference)
        _pipe(node, reference)
    finally:
        docker("rmi", reference, *([image.tag] if is_own else []))
    return LoadedImage(size, round(built - started, 1), round(time.monotonic() - built, 1))


def _build(image: Image) -> None:
    """Build an image, without what docker keeps of its first stage, which has the packages a second time."""
    stages = _unnamed()
    build(image)
    if left := _unnamed() - stages:
        docker("rmi", *left)


def _exists(tag: str) -> bool:
    return not subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=False).returncode


def _unnamed() -> set[str]:
    return set(docker("images", "--quiet", "--no-trunc", "--filter", "dangling=true").split())


def _pipe(node: Node, reference: str) -> None:
    command = ["docker", "save", reference]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as saved:
        assert saved.stdout is not None
        node.load_image(saved.stdout)
    if saved.returncode:
        raise subprocess.CalledProcessError(saved.returncode, command)
    node.drop_archived_layers(reference)
