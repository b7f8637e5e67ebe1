"""A new namespace for the tests of a module, on any cluster."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.cluster.nodes import SECONDS, namespace_is_gone, refused
from tests.unit.deploy import manifests
from tests.waiting import wait_until

# A real node gives each pod its time to stop.
REMOVE_SECONDS = 300.0

# Objects that belong to no namespace.
CLUSTER_WIDE = ("Namespace", "PriorityClass")


@dataclass(frozen=True)
class Space:
    """A namespace of a cluster, for the tests of a module."""

    plane: ControlPlane
    namespace: str

    def prod(self) -> list[dict[str, Any]]:
        """The objects of the prod overlay, in this namespace."""
        documents = manifests.build({"resources": ["../prod"], "namespace": self.namespace})
        return [document for document in documents if document["kind"] not in CLUSTER_WIDE]

    def apply(self, documents: Sequence[dict[str, Any]]) -> None:
        """Apply objects that name this namespace, or none."""
        for document in documents:
            document["metadata"].setdefault("namespace", self.namespace)
        self.plane.apply(documents)


@contextmanager
def new_space(plane: ControlPlane) -> Iterator[Space]:
    """A namespace under Pod Security `restricted`, removed at the end."""
    name = f"tailor-tests-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.core.create_namespace({"metadata": {"name": name, "labels": labels}})
    try:
        # Without it, a pod is refused.
        wait_until(lambda: not refused(partial(plane.core.read_namespaced_service_account, "default", name)), SECONDS)
        yield Space(plane, name)
    finally:
        wait_until(lambda: namespace_is_gone(plane, name), REMOVE_SECONDS, f"namespace {name}")
