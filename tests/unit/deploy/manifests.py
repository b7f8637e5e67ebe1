"""The manifests as `kubectl kustomize` builds them, with components, validated against the schemas."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

K8S = Path(__file__).parents[3] / "k8s"
CRDS = Path(__file__).parent / "crds"
SCHEMAS = "1.37"

# The one that is written in C, if PyYAML has it, reads thousands of lines ten times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Document = dict[str, Any]


@cache
def render(*components: str, overlay: str = "prod", base: str = "") -> tuple[Document, ...]:
    """The valid documents of an overlay with components on top, or only of a folder. Skips the test without kubectl and kustomize."""
    resource = f"../../{base}" if base else f"../{overlay}"
    return build({"resources": [resource], "components": [f"../../components/{name}" for name in components]})


def build(kustomization: Mapping[str, Any]) -> tuple[Document, ...]:
    """The valid documents of a kustomization whose paths are those of a folder under `k8s/overlays`."""
    if shutil.which("kubectl") is None and shutil.which("kustomize") is None:
        pytest.skip("neither kubectl nor kustomize is installed (apt-get install kubectl)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        here = os.path.relpath(K8S / "overlays" / "ours", folder)
        paths = {
            kind: [os.path.normpath(f"{here}/{path}") for path in kustomization.get(kind, [])]
            for kind in ("resources", "components")
        }
        kustomization = {**kustomization, **paths}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
        built = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    documents = tuple(yaml.load_all(built.stdout, Loader=LOADER))
    for document in documents:
        validate(document)
    return documents


def validate(document: Document) -> None:
    """Raise if a document does not fit its schema: Kubernetes' own, or a custom resource's."""
    _validate(json.dumps(document))


@cache
def _validate(text: str) -> None:
    """Most documents are the same in all overlays, and checking one takes longer than rendering it."""
    document = json.loads(text)
    schema = CRDS / f"{document['kind'].lower()}.json"
    if schema.exists():
        jsonschema.validate(document, json.loads(schema.read_text(encoding="utf-8")))
    else:
        kubernetes_validate.validate(document, SCHEMAS, strict=True)


def named(documents: Sequence[Document], kind: str) -> Mapping[str, Document]:
    """The documents of a kind by name."""
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pod_of(documents: Sequence[Document], name: str) -> Document:
    """The pod template's spec of a Deployment."""
    pod: Document = named(documents, "Deployment")[name]["spec"]["template"]["spec"]
    return pod


def container_of(documents: Sequence[Document], name: str) -> Document:
    """The container of a Deployment."""
    (container,) = pod_of(documents, name)["containers"]
    assert isinstance(container, dict)
    return container


def environment_of(documents: Sequence[Document], name: str) -> dict[str, str]:
    """The values in a Deployment's environment."""
    return {entry["name"]: entry["value"] for entry in container_of(documents, name)["env"] if "value" in entry}
