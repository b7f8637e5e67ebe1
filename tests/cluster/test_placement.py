"""The nodes that the scheduler chooses for Tailor's pods, and drains."""

from collections.abc import Iterator

import pytest
from kubernetes import client

from tests.cluster.control_plane import ControlPlane
from tests.cluster.nodes import GPU, NAMESPACE, SECONDS, pods, refused, running
from tests.unit.deploy.manifests import build, named
from tests.waiting import wait_until

PROD = {"resources": ["../prod"]}
TOO_MANY = 429


@pytest.fixture(scope="module")
def prod(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The prod overlay, all of whose pods run."""
    documents = build(PROD)
    plane.apply(documents)
    for name, deployment in named(documents, "Deployment").items():
        running(plane, name, deployment["spec"].get("replicas", 1))
    yield plane


def zone_of(plane: ControlPlane, node: str) -> str:
    return str(plane.core.read_node(node).metadata.labels["topology.kubernetes.io/zone"])


def test_inference_is_on_gpu_nodes_and_nothing_else_is(prod: ControlPlane) -> None:
    everywhere = prod.core.list_namespaced_pod(NAMESPACE).items
    on_gpu_nodes = {
        pod.metadata.labels["app.kubernetes.io/name"] for pod in everywhere if pod.spec.node_name.startswith("gpu-")
    }
    assert on_gpu_nodes == {"inference"}
    assert all(pod.spec.node_name.startswith("gpu-") for pod in pods(prod, "inference"))


@pytest.mark.parametrize("service", ["ingestion", "anonymization", "registry", "inference"])
def test_replicas_are_on_different_nodes_and_in_different_zones(prod: ControlPlane, service: str) -> None:
    nodes = [pod.spec.node_name for pod in running(prod, service, 2)]
    assert len(set(nodes)) == 2
    assert len({zone_of(prod, node) for node in nodes}) == 2


def test_a_node_can_be_drained_and_one_replica_at_a_time_leaves(prod: ControlPlane) -> None:
    (first, second) = running(prod, "registry", 2)
    prod.core.patch_node(first.spec.node_name, {"spec": {"unschedulable": True}})
    prod.core.patch_node(second.spec.node_name, {"spec": {"unschedulable": True}})

    def evict(pod: client.V1Pod) -> int:
        body = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod.metadata.name))
        return refused(lambda: prod.core.create_namespaced_pod_eviction(pod.metadata.name, NAMESPACE, body))

    try:
        assert evict(first) == 0
        wait_until(lambda: len(pods(prod, "registry")) == 2 and first.metadata.name not in names(prod, "registry"))
        # Its successor finds no node, so the other one must stay.
        assert evict(second) == TOO_MANY
    finally:
        for pod in (first, second):
            prod.core.patch_node(pod.spec.node_name, {"spec": {"unschedulable": None}})
    running(prod, "registry", 2)


def names(plane: ControlPlane, app: str) -> set[str]:
    return {pod.metadata.name for pod in pods(plane, app)}


def test_the_only_replica_of_a_service_does_not_hold_up_a_drain(prod: ControlPlane) -> None:
    (pod,) = running(prod, "training", 1)
    body = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod.metadata.name))
    prod.core.create_namespaced_pod_eviction(pod.metadata.name, NAMESPACE, body)
    wait_until(lambda: pod.metadata.name not in names(prod, "training"))
    running(prod, "training", 1)


def test_a_replica_that_finds_no_gpu_waits_and_says_so(prod: ControlPlane) -> None:
    scale(prod, 5)
    try:
        condition = wait_until(lambda: next(unplaced(prod, "inference"), None), SECONDS, "a pod without a node")
        assert condition is not None
        assert f"Insufficient {GPU}" in condition.message
    finally:
        scale(prod, 2)
        wait_until(lambda: len(pods(prod, "inference")) == 2)


def scale(plane: ControlPlane, replicas: int) -> None:
    plane.apps.patch_namespaced_deployment_scale("inference", NAMESPACE, {"spec": {"replicas": replicas}})


def unplaced(plane: ControlPlane, app: str) -> Iterator[client.V1PodCondition]:
    """Why pods have no node, as the scheduler says."""
    for pod in pods(plane, app):
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.status == "False":
                yield condition
