"""The overlay that an operator applies: prod for the tests' tiny base on processors, with the stores' addresses."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.nodes import NAMESPACE
from tests.unit.deploy.manifests import Document, build

# Names are resolved on the node, as by NodeLocal DNSCache.
COMPONENTS = ("../../components/dns-node-local", "../../../tests/cluster/flow/tiny-cpu")
BASE = "tiny-base"
# The images are in the node already, and nowhere else.
PULL = [{"op": "replace", "path": "/spec/template/spec/containers/0/imagePullPolicy", "value": "IfNotPresent"}]


def kustomization(settings: Mapping[str, str], stores: Mapping[str, str]) -> dict[str, Any]:
    """The overlay, for a folder next to prod's. `stores` are addresses by the names of the network policies that let pods reach them."""
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "tailor-settings"},
        "data": dict(settings),
    }
    return {
        "resources": ["../prod"],
        "components": [*COMPONENTS],
        "patches": [
            {"patch": yaml.safe_dump(config)},
            {"target": {"kind": "Deployment|Job"}, "patch": yaml.safe_dump(PULL)},
            *(
                {"target": {"kind": "NetworkPolicy", "name": name}, "patch": yaml.safe_dump(_let_out(address))}
                for name, address in stores.items()
            ),
        ],
    }


def _let_out(address: str) -> list[dict[str, Any]]:
    host, _, port = address.partition(":")
    rule = {"to": [{"ipBlock": {"cidr": f"{host}/32"}}], "ports": [{"protocol": "TCP", "port": int(port)}]}
    return [{"op": "replace", "path": "/spec/egress", "value": [rule]}]


def render(
    settings: Mapping[str, str],
    stores: Mapping[str, str],
    components: Sequence[str] = (),
    patches: Sequence[Mapping[str, Any]] = (),
) -> list[Document]:
    """The objects of the overlay, with further components and patches."""
    overlay = kustomization(settings, stores)
    overlay["components"] += components
    overlay["patches"] += patches
    return list(build(overlay))


def base_files(base: Path) -> Document:
    """The ConfigMap with the tiny base, which the overlay does not have."""
    files = {path.name: base64.b64encode(path.read_bytes()).decode() for path in sorted(base.iterdir())}
    return {**_named("ConfigMap", BASE), "binaryData": files}


def secret(name: str, values: Mapping[str, str]) -> Document:
    """A Secret of the installation's namespace."""
    return {**_named("Secret", name), "stringData": dict(values)}


def _named(kind: str, name: str) -> Document:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}
