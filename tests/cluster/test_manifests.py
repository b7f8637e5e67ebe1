"""The overlays and components as the API server accepts them: every object, the pods under Pod Security, and a second time without a change."""

import shutil
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pytest
import yaml

from deploy.make_secrets import make
from tests.cluster.control_plane import ControlPlane
from tests.cluster.definitions import define
from tests.cluster.nodes import NAMESPACE, SECONDS, WORKERS, remove_namespace
from tests.cluster.programs import Programs
from tests.unit.deploy.manifests import K8S, Document, build
from tests.waiting import wait_until

DIFFS = 5
# Together they have every component but those that scale by lag or queue.
PROD = [
    [],
    ["references", "teacher-egress", "external-models-egress", "judge-egress", "openid-egress"],
    ["size-8b", "arbitrary-uid", "runtime-class", "spot-workers", "autoscaling-cpu", "web-identity"],
    ["gateway", "gateway-operators", "ingress", "stable-members", "plain-text"],
    ["base-cache", "workers-namespace", "base-cache-workers", "dns-node-local", "dns-openshift"],
]
SINGLE = ["autoscaling-lag", "autoscaling-queue", "size-8b", "stable-members", "arbitrary-uid", "runtime-class"]
SINGLE += ["spot-workers", "autoscaling-cpu", "ingress", "web-identity", "workers-namespace"]
RELEASE = [["gateway", "gateway-operators"], *([name] for name in SINGLE)]
ALL = [*PROD, *(pytest.param(components, marks=pytest.mark.release) for components in RELEASE)]


@pytest.fixture
def empty(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The control plane without Tailor."""
    for name in (NAMESPACE, WORKERS):
        remove_namespace(plane, name)
    yield plane
    for name in (NAMESPACE, WORKERS):
        remove_namespace(plane, name)


def pods_are_made(plane: ControlPlane) -> bool:
    """True if every workload has the pods that it asks for: admission refused none of them."""
    workloads = [
        *plane.apps.list_namespaced_deployment(NAMESPACE).items,
        *plane.apps.list_namespaced_stateful_set(NAMESPACE).items,
    ]
    return all((workload.status.replicas or 0) >= workload.spec.replicas for workload in workloads)


def refusals(plane: ControlPlane) -> list[str]:
    """What admission said about pods that it refused."""
    events = plane.core.list_namespaced_event(NAMESPACE, field_selector="reason=FailedCreate").items
    return sorted({event.message for event in events})


def check_accepted(plane: ControlPlane, documents: Sequence[Document]) -> None:
    """Apply twice. Raises AssertionError with what was refused, or would change the second time."""
    plane.apply(documents)
    wait_until(lambda: pods_are_made(plane) or refusals(plane), SECONDS, "the pods")
    assert refusals(plane) == []
    # A Job of the overlay cannot change, and a second application of the same one does not. `diff` only reads, so a difference
    # that goes away is a status that a controller wrote between its two reads.
    command, given = ("diff", "--server-side", "--field-manager=tests", "-f", "-"), yaml.safe_dump_all(documents)
    for _ in range(DIFFS):
        changes = plane.kubectl(*command, stdin=given)
        if changes.returncode == 0:
            break
    assert (changes.returncode, changes.stdout) == (0, ""), changes.stderr
    again = plane.apply(documents)
    assert len(again.splitlines()) == len(documents)


def test_every_component_is_tried() -> None:
    overlay = yaml.safe_load((K8S / "overlays" / "prod" / "kustomization.yaml").read_text(encoding="utf-8"))
    in_prod = {Path(path).name for path in overlay["components"]}
    # Each service's own kustomization includes `service`; test_digests tries the policy, which refuses prod as it is.
    tried = {"service", "digests-only", *in_prod, *chain.from_iterable([*PROD, *RELEASE])}
    assert {path.name for path in (K8S / "components").iterdir()} == tried


@pytest.mark.parametrize("components", ALL, ids=lambda names: "+".join(names) or "plain")
def test_prod_is_accepted_and_a_second_time_changes_nothing(
    empty: ControlPlane, programs: Programs, components: list[str]
) -> None:
    define(empty, programs, components)
    made = {"resources": ["../prod"], "components": [f"../../components/{name}" for name in components]}
    check_accepted(empty, build(made))


def test_dev_is_accepted_with_its_stores_and_init_programs(empty: ControlPlane, tmp_path: Path) -> None:
    copied = tmp_path / "k8s"
    shutil.copytree(K8S, copied, ignore=shutil.ignore_patterns("secrets"))
    make(copied / "overlays" / "dev")
    built = empty.kubectl("kustomize", str(copied / "overlays" / "dev"))
    assert built.returncode == 0, built.stderr
    documents = list(yaml.safe_load_all(built.stdout))
    check_accepted(empty, documents)
    jobs = {job.metadata.name for job in empty.batch.list_namespaced_job(NAMESPACE).items}
    assert jobs == {"init-topics", "init-buckets", "init-databases"}
