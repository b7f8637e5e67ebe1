"""Workers in a second namespace: the training service starts them there and nowhere else, and cannot reach the services' Secrets."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from kubernetes import client

from services.training.domain import Job
from tailor.errors import Reason
from tests.cluster.control_plane import ControlPlane
from tests.cluster.nodes import NAMESPACE, SECONDS, WORKERS, refused, remove_namespace
from tests.cluster.workers import OPTIONS, Place, known, name_of, runs, waits_for
from tests.unit.deploy.manifests import build
from tests.unit.training.fakes import change_job
from tests.waiting import wait_until

pytestmark = pytest.mark.release

FORBIDDEN = 403
THERE = change_job(
    OPTIONS, namespace=WORKERS, service_account="training-worker", worker_role="arn:aws:iam::1:role/worker"
)
# A pod with every Secret of its namespace at hand.
THIEF: dict[str, Any] = {
    "metadata": {"name": "any"},
    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "any", "image": "any"}]}}},
}


@pytest.fixture(scope="module")
def apart(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The prod overlay with the component, without replicas."""
    documents = build({"resources": ["../prod"], "components": ["../../components/workers-namespace"]})
    for document in documents:
        if document["kind"] == "Deployment":
            document["spec"]["replicas"] = 0
    plane.apply(documents)
    yield plane
    remove_namespace(plane, WORKERS)


@pytest.fixture
def there(apart: ControlPlane) -> Iterator[Place]:
    made = Place(apart, namespace=WORKERS)
    yield made
    made.stop.set()
    apart.batch.delete_collection_namespaced_job(WORKERS, propagation_policy="Background", grace_period_seconds=0)
    wait_until(lambda: not apart.core.list_namespaced_pod(WORKERS).items, SECONDS, "no pods")


def test_a_worker_runs_there_with_its_own_account_and_a_token_for_the_store(there: Place, job: Job) -> None:
    launcher = there.launcher(THERE)
    launcher.start(job)
    runs(there, launcher, job)
    pod = there.pod(job)
    assert pod.metadata.namespace == WORKERS and pod.spec.service_account_name == "training-worker"
    (source,) = [volume.projected.sources for volume in pod.spec.volumes if volume.projected]
    assert source[0].service_account_token.audience == "sts.amazonaws.com"
    launcher.stop(job.run.run_id, job.run.epoch)
    wait_until(lambda: not there.pods(job), SECONDS, f"no pod of {name_of(job)}")


def test_the_quota_there_holds_a_worker_back_in_words(there: Place, job: Job) -> None:
    launcher = there.launcher(change_job(THERE, gpus=16))
    launcher.start(job)
    assert "'workers'" in waits_for(launcher, job, Reason.WAITS_FOR_QUOTA)
    launcher.stop(job.run.run_id, job.run.epoch)
    wait_until(lambda: known(lambda: launcher.exit_code(job.run.run_id, job.run.epoch)) is None, SECONDS, "no Job")


def test_the_services_namespace_admits_no_job_of_training(apart: ControlPlane) -> None:
    api = apart.api(apart.service_account_token(NAMESPACE, "training"))
    batch, core = client.BatchV1Api(api), client.CoreV1Api(api)
    assert refused(partial(batch.create_namespaced_job, NAMESPACE, THIEF, dry_run="All")) == FORBIDDEN
    assert refused(partial(batch.list_namespaced_job, NAMESPACE)) == FORBIDDEN
    assert refused(partial(core.list_namespaced_pod, NAMESPACE)) == FORBIDDEN
    for namespace in (NAMESPACE, WORKERS):
        assert refused(partial(core.list_namespaced_secret, namespace)) == FORBIDDEN


def test_a_workers_account_has_no_right_anywhere(apart: ControlPlane) -> None:
    api = apart.api(apart.service_account_token(WORKERS, "training-worker"))
    batch, core = client.BatchV1Api(api), client.CoreV1Api(api)
    for namespace in (NAMESPACE, WORKERS):
        assert refused(partial(batch.create_namespaced_job, namespace, THIEF, dry_run="All")) == FORBIDDEN
        assert refused(partial(core.list_namespaced_secret, namespace)) == FORBIDDEN
        assert refused(partial(core.list_namespaced_pod, namespace)) == FORBIDDEN
