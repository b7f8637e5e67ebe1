"""The launcher on a real API, with the token of training's ServiceAccount: starts, reasons of waiting, and every way in which a worker ends.

kwok runs the workers' pods; where a test needs an exit code or a failing image, it reports as a kubelet would.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kubernetes import client

from services.training.domain import RETRIABLE_EXIT, Failure, Job, RunState
from services.training.launchers.kubernetes import KubernetesLauncher
from services.training.settings import Settings
from tailor.errors import Reason
from tests.cluster.nodes import GONE, GPU, NAMESPACE, SECONDS, play_node, refused, running
from tests.cluster.workers import OPTIONS, PLAYED, Place, ends_with, name_of, runs, waits_for
from tests.integration.training_service import ONE, House, PreparingSupervisor, training_service
from tests.unit.training.fakes import change_job
from tests.waiting import wait_until

T = TypeVar("T")

FAILED_BY_ITSELF, KILLED = 1, 137


def is_out_of_time(launcher: KubernetesLauncher, job: Job) -> None:
    found = wait_until(lambda: launcher.refusal(job.run.run_id, job.run.epoch), SECONDS, "the deadline")
    assert isinstance(found, Failure)
    assert found.reason == Reason.OUT_OF_TIME


def test_a_worker_gets_a_gpu_node_and_its_job_ends(place: Place, job: Job) -> None:
    launcher = place.launcher(PLAYED)
    launcher.start(job)
    launcher.start(job)
    waits_for(launcher, job, Reason.WAITS_FOR_START)
    assert place.pod(job).spec.node_name.startswith("gpu-")
    place.report(job, {"phase": "Running"})
    runs(place, launcher, job)
    assert launcher.exit_code(job.run.run_id, job.run.epoch) is None
    place.ends(job, 0)
    ends_with(launcher, job, 0)


@pytest.mark.release
@pytest.mark.parametrize(
    ("code", "seen"), [(FAILED_BY_ITSELF, FAILED_BY_ITSELF), (KILLED, KILLED), (RETRIABLE_EXIT, RETRIABLE_EXIT)]
)
def test_a_code_that_the_worker_ended_with_is_known(place: Place, job: Job, code: int, seen: int) -> None:
    launcher = place.launcher(PLAYED)
    launcher.start(job)
    place.ends(job, code)
    ends_with(launcher, job, seen)


@pytest.mark.release
def test_a_restarted_service_finds_the_worker_and_its_end(place: Place, job: Job) -> None:
    place.launcher(PLAYED).start(job)
    place.ends(job, RETRIABLE_EXIT)
    ends_with(place.launcher(PLAYED), job, RETRIABLE_EXIT)


@pytest.mark.release
def test_two_nodes_with_two_gpus_each_get_one_pod_each(place: Place, job: Job) -> None:
    options = change_job(OPTIONS, nodes=2, gpus=2)
    launcher = place.launcher(options)
    launcher.start(job)
    runs(place, launcher, job, pods=2)
    assert sorted(pod.spec.node_name for pod in place.pods(job)) == ["gpu-a", "gpu-b"]


@pytest.mark.release
@pytest.mark.parametrize(
    ("options", "reason", "text"),
    [
        ({"gpus": 4}, Reason.WAITS_FOR_NODE, f"Insufficient {GPU}"),
        ({"node_labels": "tailor/pool=none"}, Reason.WAITS_FOR_NODE, "didn't match Pod's node affinity"),
        ({"scratch": "4Ti"}, Reason.WAITS_FOR_NODE, "Insufficient ephemeral-storage"),
        ({"runtime_class": "nvidia"}, Reason.WAITS_FOR_POD, 'RuntimeClass "nvidia" not found'),
    ],
)
def test_what_a_pod_waits_for_is_said_in_the_clusters_words(
    place: Place, job: Job, options: dict[str, Any], reason: Reason, text: str
) -> None:
    launcher = place.launcher(change_job(OPTIONS, **options))
    launcher.start(job)
    waits_for(launcher, job, reason, text)


@pytest.mark.release
def test_what_exceeds_the_quota_is_said_in_numbers(place: Place, job: Job) -> None:
    launcher = place.launcher(change_job(OPTIONS, nodes=2, gpus=5))
    launcher.start(job)
    message = waits_for(launcher, job, Reason.WAITS_FOR_QUOTA)
    assert message == f"Over the namespace's quota 'tailor': 5 requests.{GPU} requested, 5 of 8 in use."


@pytest.mark.release
def test_a_missing_priority_class_is_named_with_its_setting(place: Place, job: Job) -> None:
    launcher = place.launcher(change_job(OPTIONS, priority_class="tailor-training"))
    launcher.start(job)
    message = waits_for(launcher, job, Reason.WAITS_FOR_POD, "The PriorityClass 'tailor-training' does not exist.")
    assert "TAILOR_KUBERNETES_PRIORITY_CLASS" in message


@pytest.mark.release
def test_an_image_that_cannot_be_pulled_is_waited_for_and_then_fails_the_run(place: Place, job: Job) -> None:
    launcher = place.launcher(PLAYED)
    launcher.start(job)
    place.cannot_start(job, "ImagePullBackOff", "Back-off pulling image")
    waits_for(launcher, job, Reason.WAITS_FOR_IMAGE, "Back-off pulling image")
    assert launcher.refusal(job.run.run_id, job.run.epoch) is None
    place.ahead = timedelta(minutes=6)
    found = launcher.refusal(job.run.run_id, job.run.epoch)
    assert found is not None
    assert found.reason == Reason.IMAGE_NOT_PULLED


@pytest.mark.release
def test_a_missing_secret_is_waited_for(place: Place, job: Job) -> None:
    launcher = place.launcher(PLAYED)
    launcher.start(job)
    place.cannot_start(job, "CreateContainerConfigError", 'secret "tailor-training-worker" not found')
    waits_for(launcher, job, Reason.WAITS_FOR_CONTAINER, "tailor-training-worker")


@pytest.mark.release
def test_a_deadline_that_passes_ends_the_run(place: Place, job: Job) -> None:
    launcher = place.launcher(change_job(OPTIONS, deadline_seconds=1))
    launcher.start(job)
    is_out_of_time(launcher, job)


@pytest.mark.release
def test_a_deadline_that_passes_while_others_change_the_job_ends_the_run(place: Place, job: Job) -> None:
    # Each change makes the Job controller's own writes conflict: it then gives the exit code of the pod as the reason.
    launcher = place.launcher(change_job(OPTIONS, deadline_seconds=1))
    launcher.start(job)
    batch, name, ended = place.plane.batch, name_of(job), threading.Event()

    def change() -> None:
        for number in itertools.takewhile(lambda _: not ended.is_set(), itertools.count()):
            body = {"metadata": {"annotations": {"tests.tailor/number": str(number)}}}
            batch.patch_namespaced_job(name, NAMESPACE, body)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        is_out_of_time(launcher, job)
    finally:
        ended.set()
        changing.join()


@pytest.mark.release
def test_an_evicted_worker_is_retriable(place: Place, job: Job) -> None:
    launcher = place.launcher()
    launcher.start(job)
    runs(place, launcher, job)
    name = place.pod(job).metadata.name
    body = client.V1Eviction(metadata=client.V1ObjectMeta(name=name))
    place.plane.core.create_namespaced_pod_eviction(name, NAMESPACE, body)
    ends_with(launcher, job, RETRIABLE_EXIT)


@pytest.mark.release
def test_a_worker_whose_node_is_lost_is_retriable(place: Place, job: Job) -> None:
    play_node(place.plane, "gpu-lost", "c", gpus=4)
    launcher = place.launcher(change_job(OPTIONS, gpus=4))
    launcher.start(job)
    runs(place, launcher, job)
    assert place.pod(job).spec.node_name == "gpu-lost"
    place.plane.core.delete_node("gpu-lost")
    ends_with(launcher, job, RETRIABLE_EXIT)


@pytest.mark.release
def test_stopping_deletes_the_job_and_a_second_time_is_no_error(place: Place, job: Job) -> None:
    launcher = place.launcher()
    launcher.start(job)
    runs(place, launcher, job)
    launcher.stop(job.run.run_id, job.run.epoch)
    wait_until(lambda: refused(lambda: place.plane.batch.read_namespaced_job(name_of(job), NAMESPACE)) == GONE, SECONDS)
    launcher.stop(job.run.run_id, job.run.epoch)


@dataclass
class Training:
    """A training service whose workers are Jobs of the cluster."""

    house: House
    supervisor: PreparingSupervisor
    launcher: KubernetesLauncher

    def tick_until(self, check: Callable[[], T], description: str) -> T:
        def ticked() -> T:
            self.supervisor.tick()
            return check()

        return wait_until(ticked, SECONDS, description)

    def job(self) -> Job:
        """The current worker's."""
        run = self.house.only_run()
        return Job(run, run.base_digest)


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    with training_service(database_url, tmp_path) as house:
        yield house


def serve(house: House, place: Place, options: Settings) -> Training:
    """A service with one run, whose first worker has reported a step."""
    launcher = place.launcher(options)
    supervisor = PreparingSupervisor(house.ports, launcher, ONE)
    house.publish()
    training = Training(house, supervisor, launcher)
    training.tick_until(lambda: house.only_run().state is RunState.RUNNING, "a started run")
    return training


@pytest.mark.release
def test_waiting_inference_takes_a_workers_place_and_the_next_epoch_follows(place: Place, house: House) -> None:
    training = serve(house, place, change_job(OPTIONS, gpus=2))
    runs(place, training.launcher, training.job())
    taken = place.pod(training.job()).spec.node_name
    other = {"gpu-a": "gpu-b", "gpu-b": "gpu-a"}[taken]
    # The other node is away, so that inference finds no GPU but the worker's.
    place.plane.core.patch_node(other, {"spec": {"unschedulable": True}})
    scale = {"spec": {"replicas": 1}}
    place.plane.apps.patch_namespaced_deployment_scale("inference", NAMESPACE, scale)
    try:
        (serving,) = running(place.plane, "inference", 1)
        assert serving.spec.node_name == taken
        ends_with(training.launcher, Job(training.house.only_run(), ""), RETRIABLE_EXIT)
        place.plane.core.patch_node(other, {"spec": {"unschedulable": None}})
        training.tick_until(lambda: training.house.only_run().epoch == 2, "the second epoch")
        training.house.now.forward(60 * 5)
        runs(place, training.launcher, training.job())
        assert place.pod(training.job()).spec.node_name == other
    finally:
        place.plane.core.patch_node(other, {"spec": {"unschedulable": None}})
        place.plane.apps.patch_namespaced_deployment_scale("inference", NAMESPACE, {"spec": {"replicas": 0}})


@pytest.mark.release
def test_a_job_that_somebody_deletes_is_replaced_by_the_next_epoch(place: Place, house: House) -> None:
    training = serve(house, place, OPTIONS)
    runs(place, training.launcher, training.job())
    first = training.job()
    place.plane.batch.delete_namespaced_job(name_of(first), NAMESPACE, propagation_policy="Foreground")
    wait_until(lambda: not place.pods(first), SECONDS, "no pod")

    def has_followed() -> bool:
        # The lease ends, and then the pause before another worker.
        training.house.now.forward(60)
        return training.house.only_run().epoch == 2

    training.tick_until(has_followed, "the second epoch")
    runs(place, training.launcher, training.job())
