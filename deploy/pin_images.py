"""Pin the images of an overlay to digests: `python -m deploy.pin_images OVERLAY` writes the component OVERLAY/images.

The digests are those under which docker pushed or pulled the images on this machine. Name the component in the overlay's `components`.
`--check` writes nothing: it fails if the overlay starts an image by a tag, which can mean another image at the next start.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

FOLDER = "images"
PINNED = re.compile(r"@sha256:[0-9a-f]{64}$")
# The image of the workers of runs, which training starts; it is that of the service.
WORKER_IMAGE = "TAILOR_KUBERNETES_IMAGE"
WORKERS = {
    "source": {
        "kind": "Deployment",
        "name": "training",
        "fieldPath": "spec.template.spec.containers.[name=service].image",
    },
    "targets": [
        {
            "select": {"kind": "Deployment", "name": "training"},
            "fieldPaths": [f"spec.template.spec.containers.[name=service].env.[name={WORKER_IMAGE}].value"],
        }
    ],
}
HEAD = "# Written by python -m deploy.pin_images; run it again for a new release.\n"


def render(overlay: Path) -> list[dict[str, Any]]:
    """The objects of an overlay. Raises SystemExit with the words of kustomize."""
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    built = subprocess.run([*command, str(overlay)], capture_output=True, text=True, check=False)
    if built.returncode:
        raise SystemExit(built.stderr.strip())
    return list(yaml.safe_load_all(built.stdout))


def find_images(documents: list[dict[str, Any]]) -> dict[str, str]:
    """Where each image is used, by image: `Deployment/registry`. The workers of runs count as `Deployment/training`."""
    places: dict[str, str] = {}
    for document in documents:
        template = document.get("spec", {}).get("template", {}) if document["kind"] != "Pod" else document
        pod = template.get("spec", {}) if isinstance(template, Mapping) else {}
        for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
            named = [entry.get("value", "") for entry in container.get("env", []) if entry["name"] == WORKER_IMAGE]
            for image in (container["image"], *named):
                places.setdefault(image, f"{document['kind']}/{document['metadata']['name']}")
    return places


def find_digest(image: str) -> str:
    """The digest under which docker pushed or pulled an image. Raises SystemExit if it has none."""
    asked = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", image],
        capture_output=True,
        text=True,
        check=False,
    )
    repository = repository_of(image)
    for reference in json.loads(asked.stdout) or [] if asked.returncode == 0 else []:
        name, _, digest = reference.partition("@")
        if name == repository:
            return str(digest)
    raise SystemExit(f"{image}: docker knows no digest of it here. Push or pull it first.")


def repository_of(image: str) -> str:
    """The image's name without its tag; a port of the registry is not a tag."""
    folder, slash, name = image.partition("@")[0].rpartition("/")
    return f"{folder}{slash}{name.partition(':')[0]}"


def write_component(overlay: Path, digest_of: Callable[[str], str] = find_digest) -> dict[str, str]:
    """Write the component, and return the digests by repository. If an image has none, the component stays as it was.

    Raises SystemExit if kustomize fails, an image has no digest, or one repository is used with two tags.
    """
    file = overlay / FOLDER / "kustomization.yaml"
    before = file.read_text(encoding="utf-8") if file.exists() else None
    # Without its earlier digests, the overlay names the tags of this release. kustomize refuses a component that does nothing.
    _write(file, [{"name": "no-image", "newTag": "none"}])
    try:
        digests: dict[str, str] = {}
        for image in sorted(find_images(render(overlay))):
            if not PINNED.search(image):
                digest = digest_of(image)
                if digests.setdefault(repository_of(image), digest) != digest:
                    raise SystemExit(f"{repository_of(image)} is used with several tags. Use one.")
    except BaseException:
        if before is None:
            shutil.rmtree(file.parent)
        else:
            file.write_text(before, encoding="utf-8")
        raise
    _write(file, [{"name": name, "digest": digest} for name, digest in digests.items()])
    return digests


def _write(file: Path, images: list[dict[str, str]]) -> None:
    component = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "images": images,
        "replacements": [WORKERS],
    }
    file.parent.mkdir(exist_ok=True)
    file.write_text(HEAD + yaml.safe_dump(component, sort_keys=False), encoding="utf-8")


def find_tags(overlay: Path) -> Iterator[str]:
    """A line for each image that is not named by its digest."""
    for image, place in sorted(find_images(render(overlay)).items()):
        if not PINNED.search(image):
            yield f"{place}: {image} is named by a tag. Pin it: python -m deploy.pin_images {overlay}"


def main() -> None:
    """Pin or check the overlay on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.pin_images", description="Pin the images of an overlay to digests."
    )
    parser.add_argument("overlay", type=Path, metavar="OVERLAY")
    parser.add_argument("--check", action="store_true", help="only fail if an image is named by a tag")
    arguments = parser.parse_args()
    if not arguments.check:
        for name, digest in write_component(arguments.overlay).items():
            sys.stdout.write(f"{name}@{digest}\n")
    # After writing, this finds a component that the overlay does not name.
    tags = list(find_tags(arguments.overlay))
    if tags:
        raise SystemExit("\n".join(tags))


if __name__ == "__main__":
    main()
