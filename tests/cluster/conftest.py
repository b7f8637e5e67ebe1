"""The control plane of the tests: started once, with everything that a module leaves removed after it.

Where KUBECONFIG names a cluster, the tests that need no objects of the whole cluster run on it, in a namespace of their own.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from services.training.domain import Job
from tests.cluster.control_plane import ControlPlane, run_control_plane
from tests.cluster.nodes import NAMESPACE, SECONDS, play_node, remove_namespace, remove_nodes
from tests.cluster.programs import Programs, build, folder
from tests.cluster.spaces import Space, new_space
from tests.cluster.workers import Place
from tests.unit.deploy import manifests
from tests.unit.training.fakes import make_job
from tests.waiting import wait_until

NO_CLUSTER = "needs a Kubernetes control plane: make test-cluster"
NO_NODE = "needs a cluster with real nodes: make test-cluster-node, or KUBECONFIG"
WHOLE_CLUSTER = "needs played nodes and objects of the whole cluster: not on the cluster that KUBECONFIG names"


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> Programs:
    """The programs of a cluster. Skips the test unless `--cluster` is given: the first build takes ten minutes."""
    if not request.config.getoption("--cluster"):
        pytest.skip(NO_CLUSTER)
    if os.environ.get("KUBECONFIG"):
        pytest.skip(WHOLE_CLUSTER)
    return build(folder())


@pytest.fixture(scope="session")
def own_cluster(request: pytest.FixtureRequest) -> ControlPlane | None:
    """The cluster that KUBECONFIG names, its first file if there are several; None if it names none."""
    if not request.config.getoption("--cluster"):
        pytest.skip(NO_CLUSTER)
    named = os.environ.get("KUBECONFIG", "").partition(os.pathsep)[0]
    return ControlPlane(Path(named)) if named else None


@pytest.fixture(scope="module")
def node_space(own_cluster: ControlPlane | None) -> Iterator[Space]:
    """A namespace of the cluster that KUBECONFIG names, under Pod Security `restricted`."""
    if own_cluster is None:
        pytest.skip(NO_NODE)
    with new_space(own_cluster) as space:
        yield space


@pytest.fixture(scope="module")
def space(own_cluster: ControlPlane | None, request: pytest.FixtureRequest) -> Iterator[Space]:
    """A namespace of the cluster that KUBECONFIG names, or of the control plane with played nodes."""
    with new_space(own_cluster or request.getfixturevalue("plane")) as space:
        yield space


@pytest.fixture(scope="session")
def control_plane(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without nodes."""
    directory: Path = tmp_path_factory.mktemp("control-plane")
    with run_control_plane(programs, directory) as plane:
        yield plane


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The control plane with two zones, each with a node of 32 CPUs and one with two GPUs."""
    for zone in ("a", "b"):
        play_node(control_plane, f"cpu-{zone}", zone)
        play_node(control_plane, f"gpu-{zone}", zone, gpus=2)
    yield control_plane
    remove_namespace(control_plane)
    remove_nodes(control_plane)
    client.SchedulingV1Api(control_plane.api()).delete_collection_priority_class(
        field_selector="metadata.name=tailor-serving"
    )


@pytest.fixture(scope="module")
def idle_prod(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The prod overlay without replicas: the GPUs are the workers'."""
    documents = manifests.build({"resources": ["../prod"]})
    for document in documents:
        if document["kind"] == "Deployment":
            document["spec"]["replicas"] = 0
    plane.apply(documents)
    yield plane


@pytest.fixture
def place(idle_prod: ControlPlane) -> Iterator[Place]:
    made = Place(idle_prod)
    yield made
    made.stop.set()
    idle_prod.batch.delete_collection_namespaced_job(NAMESPACE, propagation_policy="Background", grace_period_seconds=0)
    wait_until(lambda: not idle_prod.core.list_namespaced_pod(NAMESPACE).items, SECONDS, "no pods")


@pytest.fixture
def job() -> Job:
    """A run's first worker."""
    return make_job()
