"""The launcher with the real client and an in-memory Kubernetes API."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.training.domain import RETRIABLE_EXIT, Failure, Job
from services.training.launchers.kubernetes import KubernetesLauncher
from services.training.launchers.kubernetes_job import render_job
from services.training.settings import Settings
from tailor.errors import FailedPrecondition, ResourceExhausted, TailorError, Unavailable
from tests.unit.training.fakes import change_job
from tests.unit.training.kubernetes_api import Cluster, Refused, serve
from tests.waiting import wait_until

ROLE = Path(__file__).parents[3] / "k8s" / "components" / "training-jobs" / "access.yaml"
OPTIONS = Settings(kubernetes_namespace="tailor")


@dataclass
class Place:
    """A cluster, a launcher that watches it, and a clock that tests move."""

    cluster: Cluster
    clients: tuple[Any, Any, Any]
    stop: threading.Event
    ahead: timedelta = timedelta()

    def launcher(self, options: Settings = OPTIONS) -> KubernetesLauncher:
        made = KubernetesLauncher(*self.clients, options, lambda: datetime.now(UTC) + self.ahead)
        threading.Thread(target=made.watch, args=(self.stop,), daemon=True).start()
        return made


@pytest.fixture
def place() -> Iterator[Place]:
    with serve() as (cluster, clients):
        stop = threading.Event()
        yield Place(cluster, clients, stop)
        stop.set()


def name_of(job: Job) -> str:
    return f"{job.run.run_id.replace('_', '-')}-{job.run.epoch}"


def until(ask: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """Poll until the answer is the wanted one: after a start or a lost connection the cluster is unknown for a moment."""

    def wanted_answers() -> list[Any]:
        try:
            answer = ask()
        except Unavailable as error:
            answer = error
        return [answer] if wanted(answer) else []

    return wait_until(wanted_answers)[0]


def started(place: Place, job: Job, options: Settings = OPTIONS) -> KubernetesLauncher:
    launcher = place.launcher(options)
    launcher.start(job)
    until(lambda: launcher.waits(job.run.run_id, 1), lambda answer: isinstance(answer, Failure))
    return launcher


def waits_for(launcher: KubernetesLauncher, job: Job, reason: str) -> Failure:
    found = until(
        lambda: launcher.waits(job.run.run_id, job.run.epoch),
        lambda answer: isinstance(answer, Failure) and answer.reason == reason,
    )
    assert isinstance(found, Failure)
    return found


def ends_with(launcher: KubernetesLauncher, job: Job, code: int) -> None:
    until(lambda: launcher.exit_code(job.run.run_id, job.run.epoch), lambda answer: answer == code)


def test_worker_is_started_once_runs_and_completes(place: Place, job: Job) -> None:
    launcher = started(place, job)
    launcher.start(job)
    assert list(place.cluster.objects["jobs"]) == [name_of(job)]
    waits_for(launcher, job, "WAITS_FOR_START")
    place.cluster.run_pods(name_of(job))
    until(lambda: launcher.waits(job.run.run_id, 1), lambda answer: answer is None)
    assert launcher.exit_code(job.run.run_id, 1) is None
    place.cluster.end(name_of(job), 0)
    ends_with(launcher, job, 0)
    assert launcher.waits(job.run.run_id, 1) is None


@pytest.mark.parametrize(("code", "seen"), [(1, 1), (137, 137), (75, RETRIABLE_EXIT)])
def test_failed_worker_is_distinguished_from_one_that_saved(place: Place, job: Job, code: int, seen: int) -> None:
    launcher = started(place, job)
    place.cluster.end(name_of(job), code)
    ends_with(launcher, job, seen)
    assert launcher.refusal(job.run.run_id, 1) is None


def test_preempted_worker_is_retriable_whatever_its_exit_code(place: Place, job: Job) -> None:
    launcher = started(place, job)
    place.cluster.end(name_of(job), 143, disrupted=True)
    ends_with(launcher, job, RETRIABLE_EXIT)


def test_preemption_is_known_after_the_pods_are_deleted(place: Place, job: Job) -> None:
    launcher = started(place, job)
    place.cluster.end(name_of(job), 143, disrupted=True)
    place.cluster.lose_pods(name_of(job))
    until(lambda: place.cluster.pods_of(name_of(job)), lambda pods: not pods)
    ends_with(launcher, job, RETRIABLE_EXIT)


def test_pod_evicted_for_its_own_disk_use_counts_as_failed(place: Place, job: Job) -> None:
    launcher = started(place, job)
    place.cluster.end(name_of(job), 137)
    place.cluster.pods_of(name_of(job))[0]["status"]["reason"] = "Evicted"
    ends_with(launcher, job, 137)


def test_one_disrupted_pod_of_several_makes_the_run_retriable(place: Place, job: Job) -> None:
    launcher = started(place, job, change_job(OPTIONS, nodes=2))
    place.cluster.end(name_of(job), 1, 0)
    place.cluster.end(name_of(job), 143, 1, disrupted=True)
    ends_with(launcher, job, RETRIABLE_EXIT)


def test_worker_waits_until_every_pod_has_a_node(place: Place, job: Job) -> None:
    launcher = started(place, job, change_job(OPTIONS, nodes=2))
    place.cluster.run_pods(name_of(job))
    until(lambda: launcher.waits(job.run.run_id, 1), lambda answer: answer is None)
    place.cluster.unschedulable(name_of(job), "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    waits_for(launcher, job, "WAITS_FOR_NODE")


def test_pending_pod_has_the_schedulers_message(place: Place, job: Job) -> None:
    launcher = started(place, job)
    place.cluster.unschedulable(name_of(job), "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    waiting = waits_for(launcher, job, "WAITS_FOR_NODE")
    assert waiting.message == "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def test_kueue_admits_a_worker_and_may_evict_it_again(place: Place, job: Job) -> None:
    launcher = started(place, job, change_job(OPTIONS, queue="gpu-queue"))
    assert "'gpu-queue'" in waits_for(launcher, job, "WAITS_FOR_ADMISSION").message
    place.cluster.admit(name_of(job))
    place.cluster.run_pods(name_of(job))
    until(lambda: launcher.waits(job.run.run_id, 1), lambda answer: answer is None)
    place.cluster.push_out(name_of(job))
    waits_for(launcher, job, "WAITS_FOR_ADMISSION")
    assert launcher.exit_code(job.run.run_id, 1) is None


def test_job_without_pods_names_the_command_that_explains_it(place: Place, job: Job) -> None:
    place.cluster.no_pods = True
    launcher = started(place, job)
    assert f"kubectl describe job {name_of(job)}" in waits_for(launcher, job, "WAITS_FOR_POD").message


OVER_QUOTA = (
    'pods "run-1-1-x7k2p" is forbidden: exceeded quota: tailor, requested: requests.nvidia.com/gpu=4, '
    "used: requests.nvidia.com/gpu=6, limited: requests.nvidia.com/gpu=8"
)


@pytest.mark.parametrize("folded", ["", "(combined from similar events): "], ids=["once", "often"])
def test_job_over_the_quota_waits_with_what_is_requested_and_in_use(place: Place, job: Job, folded: str) -> None:
    place.cluster.no_pods = True
    launcher = started(place, job)
    place.cluster.refuse_pods(name_of(job), f"{folded}Error creating: {OVER_QUOTA}")
    message = waits_for(launcher, job, "WAITS_FOR_QUOTA").message
    assert message == "Over the namespace's quota 'tailor': 4 requests.nvidia.com/gpu requested, 6 of 8 in use."


def test_quota_of_several_resources_is_explained_for_each(place: Place, job: Job) -> None:
    place.cluster.no_pods = True
    launcher = started(place, job)
    place.cluster.refuse_pods(
        name_of(job),
        'Error creating: pods "x" is forbidden: exceeded quota: tailor, requested: pods=1,requests.nvidia.com/gpu=1, '
        "used: pods=64,requests.nvidia.com/gpu=8, limited: pods=64,requests.nvidia.com/gpu=8",
    )
    message = waits_for(launcher, job, "WAITS_FOR_QUOTA").message
    assert message.endswith("1 pods requested, 64 of 64 in use; 1 requests.nvidia.com/gpu requested, 8 of 8 in use.")


def test_job_with_a_missing_priority_class_names_it_and_the_setting(place: Place, job: Job) -> None:
    place.cluster.no_pods = True
    launcher = started(place, job)
    cause = 'pods "run-1-1-" is forbidden: no PriorityClass with name tailor-training was found'
    place.cluster.refuse_pods(name_of(job), f"Error creating: {cause}", count=3)
    message = until(lambda: waits_for(launcher, job, "WAITS_FOR_POD").message, lambda text: "PriorityClass" in text)
    assert message == (
        "The PriorityClass 'tailor-training' does not exist. Create it, or change TAILOR_KUBERNETES_PRIORITY_CLASS."
    )


def test_newest_event_about_the_job_explains_it_in_the_words_of_the_api(place: Place, job: Job) -> None:
    place.cluster.no_pods = True
    launcher = started(place, job)
    place.cluster.refuse_pods(name_of(job), f"Error creating: {OVER_QUOTA}", seen="2026-11-27T07:30:00Z")
    place.cluster.refuse_pods("another-job-1", f"Error creating: {OVER_QUOTA}", seen="2026-11-27T09:00:00Z")
    violation = 'violates PodSecurity "restricted:latest": runAsNonRoot != true'
    place.cluster.refuse_pods(name_of(job), f'Error creating: pods "run-1-1-q" is forbidden: {violation}')
    message = until(lambda: waits_for(launcher, job, "WAITS_FOR_POD").message, lambda text: "PodSecurity" in text)
    assert message == f"Kubernetes refuses to create its pods: {violation}"


def test_quota_of_jobs_is_explained_at_the_start(place: Place, job: Job) -> None:
    over = "requested: count/jobs.batch=1, used: count/jobs.batch=32, limited: count/jobs.batch=32"
    place.cluster.refuses = Refused(403, f'jobs.batch "run-1-1" is forbidden: exceeded quota: tailor, {over}')
    with pytest.raises(ResourceExhausted) as refused:
        KubernetesLauncher(*place.clients, OPTIONS).start(job)
    assert refused.value.reason == "WAITS_FOR_QUOTA"
    assert "1 count/jobs.batch requested, 32 of 32 in use" in refused.value.message


QUEUED = change_job(OPTIONS, queue="gpu-queue")
NO_GPUS = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor h100, 2 more needed"


@pytest.mark.parametrize(
    "cause",
    [NO_GPUS, "LocalQueue gpu-queue doesn't exist", "ClusterQueue team is inactive"],
    ids=["quota", "queue", "off"],
)
def test_job_that_kueue_holds_back_has_kueues_reason(place: Place, job: Job, cause: str) -> None:
    launcher = started(place, job, QUEUED)
    place.cluster.hold_back(name_of(job), ("QuotaReserved", "False", "Pending", cause))
    message = until(lambda: waits_for(launcher, job, "WAITS_FOR_ADMISSION").message, lambda text: cause in text)
    assert message == f"Kueue has not admitted its Job to the queue 'gpu-queue': {cause}."


def test_job_that_kueue_evicted_says_why_and_what_it_waits_for(place: Place, job: Job) -> None:
    launcher = started(place, job, QUEUED)
    evicted = "Preempted to accommodate a workload (UID: 7, JobUID: 8) due to prioritization in the ClusterQueue"
    place.cluster.hold_back(
        name_of(job),
        ("QuotaReserved", "False", "Pending", NO_GPUS),
        ("Evicted", "True", "Preempted", evicted),
        ("Admitted", "False", "NoReservation", "The workload has no reservation"),
    )
    message = until(lambda: waits_for(launcher, job, "WAITS_FOR_ADMISSION").message, lambda text: "evicted" in text)
    assert message == f"Kueue evicted its Job from the queue 'gpu-queue' ({evicted}): {NO_GPUS}."


def test_job_with_reserved_quota_names_the_admission_check_that_is_open(place: Place, job: Job) -> None:
    launcher = started(place, job, QUEUED)
    check = {"name": "nodes", "state": "Pending", "message": "Waiting for two nodes", "lastTransitionTime": "x"}
    ready = {"name": "budget", "state": "Ready", "message": "", "lastTransitionTime": "x"}
    reserved = ("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue team")
    place.cluster.hold_back(name_of(job), reserved, checks=(check, ready))
    message = until(lambda: waits_for(launcher, job, "WAITS_FOR_ADMISSION").message, lambda text: "check" in text)
    assert message.endswith("'gpu-queue': its admission check 'nodes' is Pending Waiting for two nodes.")


def test_launcher_asks_only_for_warnings_and_for_workloads_of_jobs(place: Place, job: Job) -> None:
    started(place, job, QUEUED)
    wanted = {
        "events": {"fieldSelector": "type=Warning"},
        "workloads": {"labelSelector": "kueue.x-k8s.io/job-uid"},
    }
    until(lambda: {kind: place.cluster.selectors.get(kind) for kind in wanted}, lambda seen: seen == wanted)


def test_workers_are_followed_where_events_and_workloads_may_not_be_read(place: Place, job: Job) -> None:
    place.cluster.forbidden = {"events", "workloads"}
    launcher = started(place, job, QUEUED)
    message = waits_for(launcher, job, "WAITS_FOR_ADMISSION").message
    assert message == "Kueue has not admitted its Job to the queue 'gpu-queue'."
    place.cluster.admit(name_of(job))
    waits_for(launcher, job, "WAITS_FOR_START")


@pytest.mark.parametrize(
    ("reason", "waiting", "refused"),
    [
        ("ImagePullBackOff", "WAITS_FOR_IMAGE", "IMAGE_NOT_PULLED"),
        ("CreateContainerConfigError", "WAITS_FOR_CONTAINER", "CONTAINER_NOT_MADE"),
    ],
)
def test_container_that_cannot_be_created_is_refused_after_a_while(
    place: Place, job: Job, reason: str, waiting: str, refused: str
) -> None:
    launcher = started(place, job)
    place.cluster.stuck(name_of(job), reason, "not found")
    assert waits_for(launcher, job, waiting).message == f"{reason}: not found"
    assert launcher.refusal(job.run.run_id, 1) is None
    place.ahead = timedelta(minutes=6)
    refusal = launcher.refusal(job.run.run_id, 1)
    assert refusal is not None
    assert (refusal.reason, refusal.message) == (refused, f"{reason}: not found")


def test_volume_that_cannot_be_mounted_is_named_as_in_the_nodes_event(place: Place, job: Job) -> None:
    launcher = started(place, job)
    # What kept the scheduler from placing it before is over.
    place.cluster.warn_about_pod(name_of(job), "FailedScheduling", "0/1 nodes are available.")
    waits_for(launcher, job, "WAITS_FOR_START")
    cause = 'MountVolume.SetUp failed for volume "identity" : secret "training-worker" not found'
    place.cluster.warn_about_pod(name_of(job), "FailedMount", cause)
    assert waits_for(launcher, job, "WAITS_FOR_CONTAINER").message == f"FailedMount: {cause}"
    place.cluster.run_pods(name_of(job))
    until(lambda: launcher.waits(job.run.run_id, 1), lambda answer: answer is None)


def test_job_over_its_deadline_is_refused(place: Place, job: Job) -> None:
    launcher = started(place, job, change_job(OPTIONS, deadline_seconds=60))
    place.cluster.finish(name_of(job), "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    refusal = until(lambda: launcher.refusal(job.run.run_id, 1), lambda answer: isinstance(answer, Failure))
    assert refusal.reason == "OUT_OF_TIME"


@pytest.mark.parametrize(("seconds", "reason"), [(59, None), (60, "OUT_OF_TIME")])
def test_job_whose_pod_ends_at_its_deadline_is_refused(
    place: Place, job: Job, seconds: int, reason: str | None
) -> None:
    launcher = started(place, job, change_job(OPTIONS, deadline_seconds=60))
    message = "Container worker for pod tailor/worker failed with exit code 143 matching FailJob rule at index 2"
    place.cluster.finish(name_of(job), "Failed", "PodFailurePolicy", message, seconds)
    until(lambda: launcher.exit_code(job.run.run_id, 1), lambda code: code == 143)
    refusal = launcher.refusal(job.run.run_id, 1)
    assert (refusal and refusal.reason) == reason


def test_cancelled_worker_has_its_pods_grace_period_to_end(place: Place, job: Job) -> None:
    launcher = started(place, job)
    grace = render_job(job, OPTIONS)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert timedelta(seconds=grace) < launcher.ends_within < timedelta(seconds=2 * grace)


def test_stop_deletes_the_job_and_its_pods_and_is_idempotent(place: Place, job: Job) -> None:
    launcher = started(place, job)
    launcher.stop(job.run.run_id, 1)
    launcher.stop(job.run.run_id, 1)
    assert not any(place.cluster.objects.values())
    until(lambda: launcher.waits(job.run.run_id, 1), lambda answer: answer is None)
    assert launcher.exit_code(job.run.run_id, 1) is None


def test_restarted_service_finds_its_worker(place: Place, job: Job) -> None:
    started(place, job)
    place.cluster.end(name_of(job), 75)
    second = place.launcher()
    second.start(job)
    ends_with(second, job, RETRIABLE_EXIT)
    assert len(place.cluster.objects["jobs"]) == 1


def test_worker_is_unknown_until_the_cluster_was_read(place: Place, job: Job) -> None:
    launcher = KubernetesLauncher(*place.clients, OPTIONS)
    with pytest.raises(Unavailable) as unknown:
        launcher.exit_code(job.run.run_id, 1)
    assert unknown.value.reason == "KUBERNETES_UNAVAILABLE"


def test_interrupted_watch_resumes_without_listing_again(place: Place, job: Job) -> None:
    launcher = started(place, job)
    place.cluster.cut()
    place.cluster.end(name_of(job), 7)
    ends_with(launcher, job, 7)
    assert place.cluster.calls.count(("list", "jobs")) == 1


def test_watch_with_an_expired_version_lists_again(place: Place, job: Job) -> None:
    launcher = started(place, job)
    place.cluster.end(name_of(job), 7)
    place.cluster.forget_history()
    ends_with(launcher, job, 7)
    until(lambda: place.cluster.calls.count(("list", "jobs")), lambda lists: lists >= 2)


@pytest.mark.parametrize("silent", [False, True], ids=["500", "connection lost"])
def test_unreachable_api_only_delays(place: Place, job: Job, silent: bool) -> None:
    launcher = started(place, job)
    place.cluster.refuses, place.cluster.silent = Refused(500, "etcd is away"), silent
    place.cluster.cut()
    gone = until(lambda: launcher.waits(job.run.run_id, 1), lambda answer: isinstance(answer, Unavailable))
    assert gone.reason == "KUBERNETES_UNAVAILABLE"
    with pytest.raises(Unavailable):
        launcher.stop(job.run.run_id, 1)
    place.cluster.refuses, place.cluster.silent = None, False
    place.cluster.end(name_of(job), 3)
    ends_with(launcher, job, 3)


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (401, Unavailable, "KUBERNETES_FORBIDDEN"),
        (403, Unavailable, "KUBERNETES_FORBIDDEN"),
        (404, Unavailable, "KUBERNETES_FORBIDDEN"),
        (410, Unavailable, "KUBERNETES_UNAVAILABLE"),
        (422, FailedPrecondition, "KUBERNETES_REFUSED"),
        (429, ResourceExhausted, "KUBERNETES_BUSY"),
        (500, Unavailable, "KUBERNETES_UNAVAILABLE"),
        (504, Unavailable, "KUBERNETES_UNAVAILABLE"),
    ],
)
def test_every_error_of_the_api_is_retryable_or_not_and_has_its_message(
    place: Place, job: Job, code: int, kind: type[TailorError], reason: str
) -> None:
    place.cluster.refuses = Refused(code, "exceeded quota: tailor")
    with pytest.raises(kind) as refused:
        KubernetesLauncher(*place.clients, OPTIONS).start(job)
    assert refused.value.reason == reason
    assert "exceeded quota: tailor" in refused.value.message


def test_role_allows_exactly_the_calls_of_the_launcher(place: Place, job: Job) -> None:
    launcher = started(place, job, QUEUED)
    launcher.stop(job.run.run_id, 1)
    role = next(each for each in yaml.safe_load_all(ROLE.read_text(encoding="utf-8")) if each["kind"] == "Role")
    allowed = {(verb, kind) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}
    until(lambda: set(place.cluster.calls), lambda calls: calls == allowed)
