"""The launcher with Kueue: admitted, held back, and taken back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.training.domain import Job
from tailor.errors import Reason
from tests.cluster.control_plane import PLAYED_BY
from tests.cluster.kueue import GROUP, VERSION, run_kueue
from tests.cluster.nodes import GPU, NAMESPACE
from tests.cluster.programs import Programs
from tests.cluster.workers import OPTIONS, Place, runs, waits_for
from tests.unit.training.fakes import change_job
from tests.waiting import wait_until

pytestmark = pytest.mark.release

QUEUED = change_job(OPTIONS, queue="trainers", gpus=2)
API = f"{GROUP}/{VERSION}"
COVERED = ["cpu", "memory", "ephemeral-storage", GPU]


def queue(stop_policy: str = "None") -> list[dict[str, Any]]:
    """A queue of two GPUs, with plenty of everything else."""
    quotas = [{"name": name, "nominalQuota": "2" if name == GPU else "10Ti"} for name in COVERED]
    return [
        {"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": "any"}},
        {
            "apiVersion": API,
            "kind": "ClusterQueue",
            "metadata": {"name": "gpus"},
            "spec": {
                "namespaceSelector": {},
                "stopPolicy": stop_policy,
                "resourceGroups": [{"coveredResources": COVERED, "flavors": [{"name": "any", "resources": quotas}]}],
            },
        },
        {
            "apiVersion": API,
            "kind": "LocalQueue",
            "metadata": {"name": "trainers", "namespace": NAMESPACE},
            "spec": {"clusterQueue": "gpus"},
        },
    ]


@pytest.fixture
def queued(place: Place, programs: Programs, tmp_path: Path) -> Iterator[Place]:
    """The cluster with Kueue and the queue."""
    with run_kueue(programs, place.plane, tmp_path / "kueue"):
        place.plane.apply(queue())
        yield place
        # Without Kueue, its finalizers would keep what it has seen.
        place.plane.kubectl("-n", NAMESPACE, "delete", "jobs", "--all", "--wait=true")
        place.plane.kubectl("-n", NAMESPACE, "delete", "localqueue", "--all")
        place.plane.kubectl("delete", "clusterqueue,resourceflavor", "--all")


def test_kueue_admits_holds_back_with_a_reason_and_takes_back(queued: Place, job: Job) -> None:
    launcher = queued.launcher(QUEUED)
    second = replace(job, run=replace(job.run, run_id="run_second"))
    launcher.start(job)
    runs(queued, launcher, job)
    launcher.start(second)
    held = waits_for(launcher, second, Reason.WAITS_FOR_ADMISSION, f"insufficient unused quota for {GPU}")
    assert "'trainers'" in held
    launcher.stop(second.run.run_id, second.run.epoch)
    # An operator drains the queue: the worker's pod is deleted, and its Job waits again.
    queued.plane.apply(queue("HoldAndDrain"))
    waits_for(launcher, job, Reason.WAITS_FOR_ADMISSION, "evicted")
    wait_until(lambda: not queued.pods(job), 60, "no pod")


def test_the_queue_of_a_job_that_ends_passes_to_the_next(queued: Place, job: Job) -> None:
    options = change_job(QUEUED, annotations=f"{PLAYED_BY}=test")
    launcher = queued.launcher(options)
    second = replace(job, run=replace(job.run, run_id="run_second"))
    launcher.start(job)
    wait_until(lambda: queued.pods(job), 60, "a pod")
    launcher.start(second)
    waits_for(launcher, second, Reason.WAITS_FOR_ADMISSION)
    queued.ends(job, 0)
    waits_for(launcher, second, Reason.WAITS_FOR_START)
