"""Images by digest: written into a component of the overlay, checked, and required by the cluster."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.pin_images import PINNED, find_digest, find_images, find_tags, render, repository_of, write_component
from tests.unit.deploy.manifests import K8S, named
from tests.unit.deploy.manifests import render as render_component

pytestmark = pytest.mark.release


def digest_of(image: str) -> str:
    """A digest for each repository and tag."""
    return f"sha256:{sum(image.encode()):064x}"


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """An overlay on top of prod that names the component."""
    if shutil.which("kubectl") is None and shutil.which("kustomize") is None:
        pytest.skip("neither kubectl nor kustomize is installed (apt-get install kubectl)")
    shutil.copytree(K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("secrets"))
    folder = tmp_path / "k8s" / "overlays" / "ours"
    folder.mkdir()
    return folder


def name_component(overlay: Path, **more: Any) -> None:
    kustomization = {"resources": ["../prod"], "components": ["images"], **more}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")


def test_every_image_is_pinned_that_of_the_workers_and_the_init_programs_too(overlay: Path) -> None:
    name_component(overlay)
    digests = write_component(overlay, digest_of)
    assert {name.rpartition("/")[2] for name in digests} >= {"training", "registry", "inference", "init"}
    images = find_images(render(overlay))
    assert len(images) == len(digests) and all(PINNED.search(image) for image in images)
    training = named(tuple(render(overlay)), "Deployment")["training"]["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry.get("value") for entry in training["env"]}
    assert environment["TAILOR_KUBERNETES_IMAGE"] == training["image"]
    assert list(find_tags(overlay)) == []


def test_a_new_release_replaces_the_digests(overlay: Path) -> None:
    name_component(overlay)
    first = write_component(overlay, digest_of)
    name_component(overlay, images=[{"name": "registry.example/tailor/registry", "newTag": "9.9.9"}])
    # The overlay's own images come after its components': a tag there undoes the digest, and the check finds it.
    assert [line.partition(":")[0] for line in find_tags(overlay)] == ["Deployment/registry"]
    prod = overlay.parent / "prod" / "kustomization.yaml"
    prod.write_text(prod.read_text(encoding="utf-8").replace("newTag: ", "newTag: 9."), encoding="utf-8")
    name_component(overlay)
    second = write_component(overlay, digest_of)
    assert set(first) == set(second) and not set(first.values()) & set(second.values())


def test_the_check_names_every_image_by_tag_and_what_to_do(overlay: Path) -> None:
    lines = list(find_tags(overlay.parent / "prod"))
    assert len(lines) == 9
    assert "registry.example/tailor/training:0.3.0 is named by a tag. Pin it" in "\n".join(lines)


def test_an_image_without_a_digest_changes_nothing(overlay: Path) -> None:
    def unknown(image: str) -> str:
        raise SystemExit(f"{image}: docker knows no digest of it here. Push or pull it first.")

    name_component(overlay)
    with pytest.raises(SystemExit, match="Push or pull"):
        write_component(overlay, unknown)
    assert not (overlay / "images").exists()
    write_component(overlay, digest_of)
    before = (overlay / "images" / "kustomization.yaml").read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="Push or pull"):
        write_component(overlay, unknown)
    assert (overlay / "images" / "kustomization.yaml").read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("registry.example:5000/tailor/init:0.3.0", "registry.example:5000/tailor/init"),
        ("registry.example:5000/tailor/init", "registry.example:5000/tailor/init"),
        ("postgres:18.1", "postgres"),
    ],
)
def test_a_port_is_no_tag(image: str, repository: str) -> None:
    assert repository_of(image) == repository


def test_dockers_digest_is_that_of_the_same_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = "sha256:" + "a" * 64
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\necho \'["other.example/init@sha256:b","ours.example/init@{digest}"]\'\n', encoding="ascii"
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert find_digest("ours.example/init:1") == digest
    with pytest.raises(SystemExit, match="Push or pull"):
        find_digest("third.example/init:1")
    docker.write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    with pytest.raises(SystemExit, match="Push or pull"):
        find_digest("ours.example/init:1")


def test_the_component_labels_tailors_namespaces_for_the_policy() -> None:
    documents = render_component("workers-namespace", "digests-only")
    binding = named(documents, "ValidatingAdmissionPolicyBinding")["tailor-images-by-digest"]["spec"]
    selector = binding["matchResources"]["namespaceSelector"]["matchLabels"]
    assert binding["validationActions"] == ["Deny"]
    for namespace in named(documents, "Namespace").values():
        assert selector.items() <= namespace["metadata"]["labels"].items()
    policy = named(documents, "ValidatingAdmissionPolicy")[binding["policyName"]]["spec"]
    matched = {name for rule in policy["matchConstraints"]["resourceRules"] for name in rule["resources"]}
    assert matched == {"pods", "deployments", "statefulsets", "jobs"}
