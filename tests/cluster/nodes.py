"""Nodes that kwok plays, and the pods on them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from kubernetes import client
from kubernetes.client import ApiException

from tests.cluster.control_plane import ControlPlane
from tests.waiting import wait_until

T = TypeVar("T")

NAMESPACE = "tailor"
# With components/workers-namespace.
WORKERS = "tailor-workers"
GPU = "nvidia.com/gpu"
# kwok and the controllers answer within seconds on two busy cores.
SECONDS = 90.0
GONE = 404


def play_node(
    plane: ControlPlane, name: str, zone: str, gpus: int = 0, labels: Mapping[str, str] | None = None
) -> None:
    """Add a node of 32 CPUs, 256 GiB and 2 TiB. One with GPUs has the label and the taint that docs/kubernetes/doors.md asks for."""
    capacity = {"cpu": "32", "memory": "256Gi", "ephemeral-storage": "2Ti", "pods": "110"}
    own = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, **(labels or {})}
    taints = []
    if gpus:
        capacity |= {GPU: str(gpus)}
        own |= {"tailor/pool": "gpu"}
        taints = [client.V1Taint(key=GPU, value="present", effect="NoSchedule")]
    node = client.V1Node(
        metadata=client.V1ObjectMeta(name=name, labels=own),
        spec=client.V1NodeSpec(taints=taints),
        status=client.V1NodeStatus(capacity=capacity, allocatable=capacity),
    )
    plane.core.create_node(node)
    wait_until(lambda: _is_node_ready(plane, name), SECONDS, f"node {name}")


def remove_nodes(plane: ControlPlane) -> None:
    """Remove every node, and the pods that were on them."""
    plane.core.delete_collection_node()
    wait_until(lambda: not plane.core.list_node().items, SECONDS, "no nodes")


def pods(plane: ControlPlane, app: str) -> list[client.V1Pod]:
    """The pods of a workload that are not being deleted."""
    found = plane.core.list_namespaced_pod(NAMESPACE, label_selector=f"app.kubernetes.io/name={app}").items
    return [pod for pod in found if pod.metadata.deletion_timestamp is None]


def running(plane: ControlPlane, app: str, count: int) -> Sequence[client.V1Pod]:
    """The pods of a workload as soon as `count` of them run."""

    def are_running() -> list[client.V1Pod]:
        found = [pod for pod in pods(plane, app) if pod.status.phase == "Running"]
        return found if len(found) == count else []

    return wait_until(are_running, SECONDS, f"{count} pods of {app}")


def remove_namespace(plane: ControlPlane, name: str = NAMESPACE) -> None:
    """Delete the namespace, if there is one, and wait until it is gone. Its pods end at once: nothing runs in those of played nodes.

    A namespace that still has pods is looked at again only after half of their grace period. So what makes pods goes first, then the pods.
    """
    makers = (
        plane.apps.delete_collection_namespaced_deployment,
        plane.apps.delete_collection_namespaced_replica_set,
        plane.apps.delete_collection_namespaced_stateful_set,
        plane.batch.delete_collection_namespaced_job,
    )
    for delete in makers:
        delete(name, propagation_policy="Background")
    plane.core.delete_collection_namespaced_pod(name, grace_period_seconds=0)
    wait_until(lambda: namespace_is_gone(plane, name), SECONDS, f"namespace {name}")


def namespace_is_gone(plane: ControlPlane, name: str) -> bool:
    """Delete the namespace, and say whether it is gone."""
    try:
        plane.core.delete_namespace(name, grace_period_seconds=0)
    except ApiException as error:
        return bool(error.status == GONE)
    return False


def refused(ask: Callable[[], Any]) -> int:
    """The status with which the API refuses a call; 0 if it answers."""
    try:
        ask()
    except ApiException as error:
        return int(error.status)
    return 0


def _is_node_ready(plane: ControlPlane, name: str) -> bool:
    conditions = plane.core.read_node(name).status.conditions or []
    # The controller takes its own taint away once it has seen the node ready.
    taints = {taint.key for taint in plane.core.read_node(name).spec.taints or []}
    ready = any(condition.type == "Ready" and condition.status == "True" for condition in conditions)
    return ready and not any(key.startswith("node.kubernetes.io/") for key in taints)
