"""Starting workers."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import pytest
from kubernetes.client.exceptions import ApiException

from services.training import handlers
from services.training.adapters.kubernetes_launcher import JobOptions, KubernetesLauncher, render_job
from services.training.adapters.subprocess_launcher import SubprocessLauncher
from services.training.bootstrap import worker_environment
from services.training.domain import RETRIABLE_EXIT, Job
from services.training.settings import Settings
from services.training.spec import from_json
from tailor.errors import Unavailable
from tests.unit.training.fakes import House, built

OPTIONS = JobOptions("tailor", "registry/tailor-training:1", 2, "training-worker", "gpu-queue", {"TAILOR_X": "1"})


@pytest.fixture
def job() -> Job:
    house = House()
    handlers.dataset_built(house.context, built())
    house.supervisor.tick()
    return house.launcher.started[0]


def test_job_is_valid_and_restricted(job: Job) -> None:
    manifest = render_job(job, OPTIONS)
    kubernetes_validate.validate(manifest, "1.34", strict=True)
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert {"mountPath": "/dev/shm", "name": "shared-memory"} in container["volumeMounts"]
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert manifest["spec"]["backoffLimit"] == 0
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-queue"


def test_job_carries_the_run_and_no_secret(job: Job) -> None:
    (container,) = render_job(job, OPTIONS)["spec"]["template"]["spec"]["containers"]
    variables = {entry["name"]: entry for entry in container["env"]}
    assert from_json(variables["TAILOR_RUN_JSON"]["value"]).run_id == job.run.run_id
    assert "value" not in variables["TAILOR_S3_SECRET_KEY"]


def test_preemption_is_told_from_a_worker_that_ended(job: Job) -> None:
    ignored, ended = render_job(job, OPTIONS)["spec"]["podFailurePolicy"]["rules"]
    assert (ignored["action"], ended["action"]) == ("Ignore", "FailJob")
    assert ignored["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_without_gpus_or_kueue_the_job_asks_for_neither(job: Job) -> None:
    manifest = render_job(job, replace(OPTIONS, gpus=0, queue=""))
    kubernetes_validate.validate(manifest, "1.34", strict=True)
    assert manifest["spec"]["suspend"] is False
    assert manifest["spec"]["template"]["spec"]["tolerations"] == []


class FakeCluster:
    """The parts of the Kubernetes API that the launcher calls."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.pods: list[Any] = []
        self.down = False

    def create_namespaced_job(self, namespace: str, body: dict[str, Any]) -> None:
        if self.down:
            raise ApiException(status=500)
        if body["metadata"]["name"] in self.jobs:
            raise ApiException(status=409)
        self.jobs[body["metadata"]["name"]] = SimpleNamespace(spec=SimpleNamespace(suspend=body["spec"]["suspend"]))

    def read_namespaced_job(self, name: str, namespace: str) -> Any:
        if name not in self.jobs:
            raise ApiException(status=404)
        return self.jobs[name]

    def delete_namespaced_job(self, name: str, namespace: str, propagation_policy: str) -> None:
        if self.jobs.pop(name, None) is None:
            raise ApiException(status=404)

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        return SimpleNamespace(items=self.pods)

    def pod(self, phase: str, exit_code: int | None = None, reason: str = "") -> None:
        ended = None if exit_code is None else SimpleNamespace(exit_code=exit_code)
        status = SimpleNamespace(state=SimpleNamespace(terminated=ended))
        self.pods = [SimpleNamespace(status=SimpleNamespace(phase=phase, reason=reason, container_statuses=[status]))]


def test_kubernetes_launcher_follows_a_job_through_its_life(job: Job) -> None:
    cluster = FakeCluster()
    launcher = KubernetesLauncher(cluster, cluster, OPTIONS)
    run_id, epoch = job.run.run_id, job.run.epoch
    launcher.start(job)
    launcher.start(job)
    assert list(cluster.jobs) == [f"{run_id.replace('_', '-')}-1"]
    assert launcher.waits(run_id, epoch) is not None
    cluster.jobs[f"{run_id.replace('_', '-')}-1"].spec.suspend = False
    cluster.pod("Running")
    assert launcher.waits(run_id, epoch) is None
    assert launcher.exit_code(run_id, epoch) is None
    cluster.pod("Failed", 137)
    assert launcher.exit_code(run_id, epoch) == 137
    cluster.pod("Failed", 143, "Evicted")
    assert launcher.exit_code(run_id, epoch) == RETRIABLE_EXIT
    launcher.stop(run_id, epoch)
    launcher.stop(run_id, epoch)
    assert not cluster.jobs


def test_kubernetes_that_refuses_is_tried_again(job: Job) -> None:
    cluster = FakeCluster()
    cluster.down = True
    with pytest.raises(Unavailable):
        KubernetesLauncher(cluster, cluster, OPTIONS).start(job)


def launcher_of(folder: Path, script: str) -> SubprocessLauncher:
    """A launcher whose workers run this script."""
    return SubprocessLauncher(folder, {"PATH": "/usr/bin:/bin"}, [sys.executable, "-c", script])


def wait_until(check: Any) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_process_is_started_once_and_its_end_is_seen(job: Job, tmp_path: Path) -> None:
    script = "import os,sys; open(os.environ['TAILOR_RUN_FILE']+'.seen','a').write('x'); sys.exit(7)"
    launcher = launcher_of(tmp_path, script)
    launcher.start(job)
    launcher.start(job)
    wait_until(lambda: launcher.exit_code(job.run.run_id, 1) == 7)
    assert (tmp_path / f"{job.name}.json.seen").read_text() == "x"
    assert json.loads((tmp_path / f"{job.name}.json").read_text())["epoch"] == 1


def test_restarted_launcher_knows_a_live_worker_and_can_end_it(job: Job, tmp_path: Path) -> None:
    first = launcher_of(tmp_path, "import time; time.sleep(60)")
    first.start(job)
    second = launcher_of(tmp_path, "")
    second.start(job)
    assert second.exit_code(job.run.run_id, 1) is None
    assert second.exit_code("run_unknown", 1) is None
    second.stop_all()
    assert second.exit_code(job.run.run_id, 1) == 1
    assert first.exit_code(job.run.run_id, 1) == -15


def test_worker_gets_none_of_the_services_secrets() -> None:
    settings = Settings(
        s3_access_key="service", s3_secret_key="own", worker_s3_access_key="worker", worker_s3_secret_key="w"
    )
    inherited = {
        "PATH": "/bin",
        "TAILOR_DATABASE_URL": "postgresql://secret",
        "TAILOR_KAFKA_SASL_PASSWORD": "secret",
        "TAILOR_COMPUTE_LOCK": "/run/lock",
    }
    environment = worker_environment(settings, inherited)
    assert "secret" not in "".join(environment.values())
    assert environment["TAILOR_S3_ACCESS_KEY"] == "worker"
    assert environment["TAILOR_COMPUTE_LOCK"] == "/run/lock"
