"""Pods on a real node: our security settings, names, Services and probes, and training's workers as a kubelet reports them.

Runs on the cluster that KUBECONFIG names, which must have the image of `tools_image.py`; `make test-cluster-node` starts one.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client

from services.training.domain import RETRIABLE_EXIT, Job
from tailor.errors import Reason
from tests.cluster import tools_image
from tests.cluster.spaces import Space
from tests.cluster.workers import OPTIONS, Place, ends_with, runs, waits_for
from tests.unit.deploy.manifests import Document, container_of, pod_of, render
from tests.unit.training.fakes import change_job
from tests.waiting import wait_until

pytestmark = pytest.mark.release

# A busy machine starts a container in seconds, and a kubelet backs off between its tries.
SECONDS = 180.0
SMALL = {
    "gpus": 0,
    "cpu": "10m",
    "cpu_limit": "1",
    "memory": "16Mi",
    "memory_limit": "64Mi",
    "shared_memory": "8Mi",
    "scratch": "64Mi",
}
WORKER = change_job(OPTIONS, image=tools_image.NAME, node_labels="", service_account="training-worker", **SMALL)
OUT_OF_MEMORY = 137
# Longer than a busy control plane needs to take a pod's address away.
HOOK_SECONDS = 12
# The last line of a web page, or `gone`.
ASK = r"""
ask() { answer=$(printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 $1 $2 | tail -n 1); echo ${answer:-gone}; }
"""
SECRET = ("identity.pem", "trust.json", "s3-access-key", "s3-secret-key")


def pod(name: str, script: str, **container: Any) -> Document:
    """A pod with the security settings of a service's, which runs a shell script."""
    deployment = render()
    service = pod_of(deployment, "registry")
    ours = {
        "name": "main",
        "image": tools_image.NAME,
        "command": ["sh", "-ec", script],
        "securityContext": container_of(deployment, "registry")["securityContext"],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        **container,
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": HOOK_SECONDS + 2,
        "securityContext": service["securityContext"],
        "containers": [ours],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def output(space: Space, name: str) -> str:
    """The log of a pod that has ended. Raises AssertionError with it if the pod failed."""
    core = space.plane.core
    ended = {"Succeeded", "Failed"}
    wait_until(
        lambda: core.read_namespaced_pod(name, space.namespace).status.phase in ended, SECONDS, f"the end of {name}"
    )
    written = str(core.read_namespaced_pod_log(name, space.namespace))
    assert core.read_namespaced_pod(name, space.namespace).status.phase == "Succeeded", written
    return written


def test_a_pod_with_the_services_security_writes_only_where_it_may(node_space: Space) -> None:
    script = (
        "id -u; touch /tmp/there; touch /there 2>&1 || true; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status"
    )
    node_space.apply([pod("security", script)])
    lines = output(node_space, "security").split()
    assert lines[0] == "10001"
    assert " ".join(lines[1:]).startswith("touch: /there: Read-only file system CapEff: 0000000000000000")
    assert lines[-4:] == ["NoNewPrivs:", "1", "Seccomp:", "2"]


@pytest.fixture(scope="module")
def web(node_space: Space) -> Space:
    """A Service with one ready pod."""
    script = "echo answered > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"
    probe = {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    stop = {"preStop": {"sleep": {"seconds": HOOK_SECONDS}}}
    node_space.apply([service, pod("web", script, readinessProbe=probe, lifecycle=stop)])
    wait_until(lambda: addresses(node_space), SECONDS, "a ready pod")
    return node_space


def addresses(space: Space) -> list[str]:
    """The pods that the Service sends calls to."""
    slices = client.DiscoveryV1Api(space.plane.api()).list_namespaced_endpoint_slice(space.namespace).items
    return [
        address
        for part in slices
        for endpoint in part.endpoints or []
        if endpoint.conditions.ready
        for address in endpoint.addresses
    ]


def test_a_service_answers_by_name_and_by_address(web: Space) -> None:
    address = web.plane.core.read_namespaced_service("web", web.namespace).spec.cluster_ip
    # A static busybox resolves names only for this program.
    name = f"nslookup web.{web.namespace}.svc.cluster.local | sed -n 's/^Address: //p'"
    web.apply([pod("asker", f"{ASK}for host in {address} $({name}); do echo $host; ask $host 80; done")])
    assert output(web, "asker").split() == [address, "answered"] * 2


def test_a_pod_that_stops_gets_no_calls_but_answers_until_its_hook_is_over(web: Space) -> None:
    (address,) = addresses(web)
    script = f"{ASK}for second in $(seq {2 * HOOK_SECONDS}); do ask {address} 8080; sleep 1; done"
    web.apply([pod("watcher", script)])
    core = web.plane.core
    wait_until(
        lambda: core.read_namespaced_pod("watcher", web.namespace).status.phase == "Running", SECONDS, "the watcher"
    )
    core.delete_namespaced_pod("web", web.namespace)
    wait_until(lambda: not addresses(web), SECONDS, "no address")
    stopping = core.read_namespaced_pod("web", web.namespace)
    assert stopping.metadata.deletion_timestamp is not None
    assert stopping.status.container_statuses[0].state.running is not None
    lines = [line for line in output(web, "watcher").splitlines() if line in {"answered", "gone"}]
    assert lines.count("answered") >= HOOK_SECONDS / 2
    assert lines[-1] == "gone"


@pytest.fixture(scope="module")
def workers(node_space: Space) -> Space:
    """A namespace with the accounts, the Role and the Secret that training's Jobs need."""
    documents = [item for item in node_space.prod() if item["metadata"]["name"].startswith("training")]
    kept = {"Role", "RoleBinding", "ServiceAccount"}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": OPTIONS.kubernetes_worker_secret},
        "stringData": dict.fromkeys(SECRET, "test"),
    }
    node_space.apply([*(item for item in documents if item["kind"] in kept), secret])
    return node_space


@pytest.fixture
def place(workers: Space) -> Iterator[Place]:
    made = Place(workers.plane, namespace=workers.namespace, services=workers.namespace)
    yield made
    made.stop.set()
    workers.plane.batch.delete_collection_namespaced_job(
        workers.namespace, propagation_policy="Background", grace_period_seconds=0
    )
    label = "app.kubernetes.io/name=training-worker"
    core = workers.plane.core
    wait_until(
        lambda: not core.list_namespaced_pod(workers.namespace, label_selector=label).items, SECONDS, "no workers"
    )


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ("PLAYED_EXIT=0", 0),
        ("PLAYED_EXIT=1", 1),
        (f"PLAYED_EXIT={RETRIABLE_EXIT}", RETRIABLE_EXIT),
        (f"PLAYED_MEMORY={256 * 1024**2}", OUT_OF_MEMORY),
    ],
    ids=["finished", "failed", "retriable", "out of memory"],
)
def test_a_workers_end_is_known_by_its_code(place: Place, job: Job, environment: str, code: int) -> None:
    launcher = place.launcher(change_job(WORKER, namespace=place.namespace, environment=environment))
    launcher.start(job)
    ends_with(launcher, job, code)


def test_an_evicted_worker_is_retriable_whatever_its_code(place: Place, job: Job) -> None:
    launcher = place.launcher(change_job(WORKER, namespace=place.namespace))
    launcher.start(job)
    runs(place, launcher, job)
    name = place.pod(job).metadata.name
    body = client.V1Eviction(metadata=client.V1ObjectMeta(name=name))
    place.plane.core.create_namespaced_pod_eviction(name, place.namespace, body)
    ends_with(launcher, job, RETRIABLE_EXIT)


def test_an_image_that_the_node_cannot_get_is_waited_for_in_its_words(place: Place, job: Job) -> None:
    launcher = place.launcher(change_job(WORKER, namespace=place.namespace, image="127.0.0.1:1/none:1"))
    launcher.start(job)
    message = waits_for(launcher, job, Reason.WAITS_FOR_IMAGE)
    assert "127.0.0.1:1/none:1" in message


def test_a_missing_secret_is_waited_for_by_name(place: Place, job: Job) -> None:
    launcher = place.launcher(change_job(WORKER, namespace=place.namespace, worker_secret="absent"))
    launcher.start(job)
    assert "absent" in waits_for(launcher, job, Reason.WAITS_FOR_CONTAINER)


def test_a_stopped_worker_has_gone_with_its_job(place: Place, job: Job) -> None:
    launcher = place.launcher(change_job(WORKER, namespace=place.namespace))
    launcher.start(job)
    runs(place, launcher, job)
    launcher.stop(job.run.run_id, job.run.epoch)
    wait_until(lambda: not place.pods(job), SECONDS, "no pod")
