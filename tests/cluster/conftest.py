"""The control plane of the tests: started once, with everything that a module leaves removed after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from services.training import programme
from services.training.domain import Job
from tests.cluster.control_plane import ControlPlane, run_control_plane
from tests.cluster.nodes import NAMESPACE, SECONDS, play_node, remove_namespace, remove_nodes
from tests.cluster.programs import Programs, build, folder
from tests.cluster.workers import Place
from tests.unit.deploy import manifests
from tests.unit.training.fakes import House, built
from tests.waiting import wait_until


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> Programs:
    """The programs of a cluster. Skips the test unless `--cluster` is given: the first build takes ten minutes."""
    if not request.config.getoption("--cluster"):
        pytest.skip("needs a Kubernetes control plane: make test-cluster")
    return build(folder())


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
    """The first job that the supervisor starts for a new dataset."""
    house = House()
    programme.queue_run_for_dataset(house.ports, built())
    house.supervisor.tick()
    return house.launcher.started[0]
