"""The objects that an operator applies: the prod overlay for the tests' tiny base on processors, the stores' addresses, and the Secrets."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.secret_manifests import manifests as secret_manifests
from tests.cluster.flow.stores import ADMINISTRATORS, Stores
from tests.cluster.nodes import NAMESPACE
from tests.real.kinds import read_env
from tests.unit.deploy.manifests import Document, build

COMPONENT = "../../../tests/cluster/flow/tiny-cpu"
BASE = "tiny-base"
# The images are in the node already, and nowhere else.
PULL = [{"op": "replace", "path": "/spec/template/spec/containers/0/imagePullPolicy", "value": "IfNotPresent"}]


def render(settings: Mapping[str, str]) -> list[Document]:
    """The objects of the overlay."""
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "tailor-settings"},
        "data": dict(settings),
    }
    kustomization: dict[str, Any] = {
        "resources": ["../prod"],
        "components": [COMPONENT],
        "patches": [
            {"patch": yaml.safe_dump(config)},
            {"target": {"kind": "Deployment|Job"}, "patch": yaml.safe_dump(PULL)},
        ],
    }
    return list(build(kustomization))


def prerequisites(stores: Stores, base: Path) -> list[Document]:
    """The Secrets and the ConfigMaps that the overlay does not have."""
    documents = [*secret_manifests(stores.folder, NAMESPACE, NAMESPACE)]
    for name in ADMINISTRATORS:
        documents.append(secret(name, read_env(stores.secrets / f"{name}.env")))
    files = {path.name: base64.b64encode(path.read_bytes()).decode() for path in sorted(base.iterdir())}
    documents.append({**_named("ConfigMap", BASE), "binaryData": files})
    return documents


def secret(name: str, values: Mapping[str, str]) -> Document:
    """A Secret of the installation's namespace."""
    return {**_named("Secret", name), "stringData": dict(values)}


def _named(kind: str, name: str) -> Document:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}
