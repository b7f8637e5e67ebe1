"""A user's first day with an installation on the cluster, by the page for a first specialist, and an operator's restarts and kills afterwards."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

from kubernetes import client

from tailor import demo, wire
from tailor.api.anonymization.v1 import anonymization_pb2
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.adapters import wait_for_rollout
from tailor.cli.calls import list_adapters, pages
from tailor.cli.connections import SERVICES as WITH_RPC
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.progress import ProgressReporter, Report, wait_for
from tailor.cli.run_views import FAILED, describe
from tailor.events.envelope import new_id
from tests.cluster.control_plane import ControlPlane
from tests.cluster.flow.calls import Calls
from tests.cluster.flow.page import Shell, sections
from tests.cluster.nodes import NAMESPACE
from tests.real.servers import free_ports
from tests.unit.deploy.policies import NAME
from tests.waiting import wait_for_port, wait_until

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "deploy" / "sample"
# The tiny base learns little from a row. With all rows, the gate has no doubt.
CHANGES = {'base = "smollm2-135m-instruct"': 'base = "tiny"', "max_train_tokens = 18_000": "max_train_tokens = 60_000"}
PERSON = "Perpetua Quillfeather"
WITH_PERSON = 2
RPC_PORT = 50051
# Two busy cores import torch in every service at once.
READY_SECONDS = 1200.0
RESTART_SECONDS = 900.0
RECEIPT_SECONDS = 300.0
FORWARD_SECONDS = 60.0
WORKERS = "app.kubernetes.io/name=training-worker"
KEY_SECRET = "caller"
OURS = "app.kubernetes.io/part-of=tailor"
# As long as it takes the pods to end, and a little.
DRAIN_SECONDS = 40
# Of the recipes that the base can follow, one whose steps take longer.
EVICTED_RECIPE = "dora"


@contextmanager
def connect(plane: ControlPlane, folder: Path, authority: Path, key: str) -> Iterator[Connections]:
    """Connections of this machine to the services, with TLS. The network policies admit no address outside of the cluster, so ports are forwarded."""
    with ExitStack() as forwards:
        addresses = {service: forwards.enter_context(_forward(plane, service)) for service in WITH_RPC}
        endpoints = Endpoints(folder, api_key=key, addresses=addresses, tls_ca_file=authority)
        connections = Connections(endpoints)
        forwards.callback(connections.close)
        yield connections


@contextmanager
def _forward(plane: ControlPlane, service: str) -> Iterator[str]:
    """The address at which a pod of a service is reached until the end of the block."""
    (port,) = free_ports(1)
    command = ["kubectl", f"--kubeconfig={plane.kubeconfig}", "port-forward", f"--namespace={NAMESPACE}"]
    process = subprocess.Popen([*command, f"service/{service}", f"{port}:{RPC_PORT}"], stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port, FORWARD_SECONDS)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def copy_sample(folder: Path) -> demo.Sample:
    """The sample for the tiny base, with a few papers that name a person who asks to be erased later."""
    copytree(SAMPLE, folder)
    definition = (folder / "specialist.toml").read_text(encoding="utf-8")
    for line, change in CHANGES.items():
        assert line in definition
        definition = definition.replace(line, change)
    (folder / "specialist.toml").write_text(definition, encoding="utf-8")
    papers = sorted((folder / "documents").glob("*.md"))[:WITH_PERSON]
    for paper in papers:
        text = paper.read_text(encoding="utf-8")
        paper.write_text(f"{text}\n\nAsked for by {PERSON} in the end.\n", encoding="utf-8")
    return demo.read_sample(folder)


def wait_ready(plane: ControlPlane, now: Report) -> int:
    """Wait until the init Jobs have ended well and every replica is ready. Returns the number of ready pods."""

    def check() -> tuple[int | None, str]:
        jobs = plane.batch.list_namespaced_job(NAMESPACE, label_selector="tailor/init=true").items
        deployments = plane.apps.list_namespaced_deployment(NAMESPACE).items
        waiting = [f"Job {job.metadata.name}" for job in jobs if not job.status.succeeded]
        waiting += [item.metadata.name for item in deployments if not is_complete(item)]
        ready = sum(item.status.ready_replicas or 0 for item in deployments)
        return (None if waiting else ready), f"{ready} pods are ready; waiting for {', '.join(waiting)}"

    return wait_for(check, now, stalled_seconds=READY_SECONDS)


def is_complete(deployment: client.V1Deployment) -> bool:
    """Whether all replicas are of the newest revision and ready, and no other one is left."""
    wanted, status = deployment.spec.replicas, deployment.status
    return bool(
        (status.observed_generation or 0) >= deployment.metadata.generation
        and status.updated_replicas == status.ready_replicas == status.replicas == wanted
    )


class Reader:
    """Follows the page of `page.py`: waits where it says so, and puts real ids in place of its words. `connect` works once it has been started."""

    def __init__(
        self, shell: Shell, connect: Callable[[], Connections], specialist: models_pb2.SpecialistChanged, documents: int
    ) -> None:
        self.anonymized = 0
        self._shell = shell
        self._connect = connect
        self._specialist = specialist
        self._documents = documents
        self._since = wire.now()
        self._waits = {
            "specialist create": self._wait_for_base,
            "tailor build": self._wait_for_documents,
            "tailor ask": self._wait_until_served,
        }
        self._ids = {"RUN": self._find_run, "ADAPTER": self._find_promoted}

    def follow(self, progress: ProgressReporter) -> None:
        """Run the page's commands. Blocks. Raises AssertionError if one fails, or if the gate does not promote the adapter."""
        for number, section in enumerate(sections(), start=1):
            with progress.step(f"page {number}", section.question):
                for code in section.blocks:
                    progress.now(code.splitlines()[0])
                    self._shell.run(self._prepare(code, progress.now))

    def _prepare(self, code: str, now: Report) -> str:
        for words, wait in self._waits.items():
            if words in code:
                wait(now)
        for word, find in self._ids.items():
            if re.search(rf"\b{word}\b", code):
                code = re.sub(rf"\b{word}\b", find(now), code)
        return code

    def _wait_for_base(self, now: Report) -> None:
        with self._connect().client() as callers:
            demo.wait_for_base(self._connect(), callers, self._specialist.base, now)

    def _wait_for_documents(self, now: Report) -> None:
        request = registry_pb2.GetFlowRequest(since=self._since)

        def are_through() -> tuple[int | None, str]:
            flow = self._connect().registry.GetFlow(request)
            count = flow.anonymized + sum(flow.rejected.values())
            text = f"{count} of {self._documents} documents are anonymised or rejected"
            return flow.anonymized if count >= self._documents else None, text

        self.anonymized = wait_for(are_through, now)

    def _find_run(self, now: Report) -> str:
        request = training_pb2.ListRunsRequest(specialist=self._specialist.name)

        def listed() -> tuple[str | None, str]:
            runs: Iterator[training_pb2.Run] = pages(self._connect().training.ListRuns, request)
            return next((run.run_id for run in runs), None), "waiting for the run"

        return wait_for(listed, now)

    def _find_promoted(self, now: Report) -> str:
        item = demo.evaluate(self._connect(), self._wait_for_adapter(now), now)
        assert item.decision == registry_pb2.DECISION_PASSED, "\n".join(item.reasons)
        return item.adapter.digest

    def _wait_for_adapter(self, now: Report) -> models_pb2.AdapterTrained:
        def known() -> tuple[models_pb2.AdapterTrained | None, str]:
            items = list_adapters(self._connect().registry, self._specialist.name)
            return next((item.adapter for item in items), None), "waiting for the adapter"

        return wait_for(known, now)

    def _wait_until_served(self, now: Report) -> None:
        connections = self._connect()
        with connections.client() as callers:
            demo.wait_until_served(connections, callers, self._wait_for_adapter(now), now)
        request = registry_pb2.GetSpecialistRequest(name=self._specialist.name)
        wait_for_rollout(connections.registry, connections.registry.GetSpecialist(request).serving.decision)


def evict_worker(connections: Connections, plane: ControlPlane, specialist: str, now: Report) -> Mapping[str, int]:
    """Start another run of the newest dataset, evict its worker in training, and wait for its end.

    Returns the run's epochs, and the step from which its last worker went on.
    """
    listed = training_pb2.ListRunsRequest(specialist=specialist)
    runs: Iterator[training_pb2.Run] = pages(connections.training.ListRuns, listed)
    newest = next(runs)
    request = training_pb2.CreateRunRequest(
        specialist=specialist,
        dataset_digest=newest.dataset_digest,
        base=newest.base,
        recipe=EVICTED_RECIPE,
        request_id=new_id("req"),
    )
    asked = training_pb2.GetRunRequest(run_id=connections.training.CreateRun(request, timeout=60).run.run_id)

    def read() -> training_pb2.Run:
        return connections.training.GetRun(asked).run

    def trains() -> tuple[training_pb2.Run | None, str]:
        run = read()
        return run if run.progress.step else None, describe(run)

    wait_for(trains, now, poll_seconds=0.2)
    pod = _newest_worker(plane)
    plane.core.create_namespaced_pod_eviction(pod, NAMESPACE, client.V1Eviction(metadata=client.V1ObjectMeta(name=pod)))

    def ended() -> tuple[training_pb2.Run | None, str]:
        run = read()
        assert run.state not in FAILED, run.message
        return run if run.state == training_pb2.RUN_STATE_SUCCEEDED else None, describe(run)

    run = wait_for(ended, now)
    return {"epochs": run.epoch, "from_step": first_step(plane, _newest_worker(plane))}


def _newest_worker(plane: ControlPlane) -> str:
    pods = plane.core.list_namespaced_pod(NAMESPACE, label_selector=WORKERS).items
    return str(max(pods, key=lambda pod: pod.metadata.creation_timestamp).metadata.name)


def first_step(plane: ControlPlane, worker: str) -> int:
    """The step from which a worker went on, as its log has it; 0 if it began at the first."""
    log = plane.kubectl("logs", f"--namespace={NAMESPACE}", worker).stdout.splitlines()
    entries = [json.loads(line) for line in log if line.startswith("{")]
    return next((int(entry["from_step"]) for entry in entries if "from_step" in entry), 0)


def count_worker_jobs(plane: ControlPlane) -> int:
    """The Jobs of training's workers that ended well."""
    jobs = plane.batch.list_namespaced_job(NAMESPACE, label_selector=WORKERS).items
    return sum(bool(job.status.succeeded) for job in jobs)


def make_caller_key(connections: Connections, specialist: str) -> str:
    """A new API key that may ask the specialist."""
    request = registry_pb2.CreateKeyRequest(name="flow", role=common_pb2.ROLE_CALLER, specialists=[specialist])
    return connections.registry.CreateKey(request).secret


def restart(plane: ControlPlane, name: str) -> float:
    """Restart a Deployment's pods as `kubectl rollout restart` does. Blocks until the last one is new and ready; returns the seconds."""
    started = time.monotonic()
    restarted = plane.kubectl("rollout", "restart", f"--namespace={NAMESPACE}", f"deployment/{name}")
    assert not restarted.returncode, restarted.stderr
    wait_until(lambda: is_whole(plane, name), RESTART_SECONDS, f"the restart of {name}")
    return round(time.monotonic() - started, 1)


def kill(plane: ControlPlane, name: str) -> float:
    """Kill a pod of a Deployment without a grace period. Blocks until another one has taken its place; returns the seconds."""
    core, started = plane.core, time.monotonic()
    label = f"app.kubernetes.io/name={name}"
    pod = core.list_namespaced_pod(NAMESPACE, label_selector=label).items[0].metadata
    core.delete_namespaced_pod(pod.name, NAMESPACE, grace_period_seconds=0)

    def is_replaced() -> bool:
        pods = core.list_namespaced_pod(NAMESPACE, label_selector=label).items
        # The Deployment's status follows later than its pods.
        ready = [item for item in pods if is_ready(item) and item.metadata.uid != pod.uid]
        wanted = plane.apps.read_namespaced_deployment(name, NAMESPACE).spec.replicas
        return bool(len(ready) == len(pods) == wanted)

    wait_until(is_replaced, RESTART_SECONDS, f"another pod of {name}")
    return round(time.monotonic() - started, 1)


def drain(plane: ControlPlane) -> Mapping[str, object]:
    """Drain the node as for maintenance, and take it into use again. Blocks until every pod is back.

    There is no other node, so each pod that leaves waits for this one, and the budget of inference keeps its last replica. Returns the
    services whose pods were kept, and the seconds from the end of the drain until all pods were ready.
    """
    node = plane.core.list_node().items[0].metadata.name
    options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DRAIN_SECONDS}s", f"--pod-selector={OURS}")
    drained = plane.kubectl("drain", node, *options)
    assert drained.returncode, "the only node was drained, although a budget keeps a replica of inference"
    kept = {pod.metadata.labels[NAME] for pod in _running(plane)}
    started = time.monotonic()
    uncordoned = plane.kubectl("uncordon", node)
    assert not uncordoned.returncode, uncordoned.stderr
    names = [item.metadata.name for item in plane.apps.list_namespaced_deployment(NAMESPACE).items]
    wait_until(lambda: all(is_whole(plane, name) for name in names), RESTART_SECONDS, "the return of the drained pods")
    return {"kept": sorted(kept), "seconds_until_ready": round(time.monotonic() - started, 1)}


def _running(plane: ControlPlane) -> Sequence[client.V1Pod]:
    pods = plane.core.list_namespaced_pod(NAMESPACE, label_selector=OURS).items
    return [pod for pod in pods if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None]


def is_ready(pod: client.V1Pod) -> bool:
    """Whether a pod is ready."""
    return any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions or [])


def is_whole(plane: ControlPlane, name: str) -> bool:
    """Whether all replicas of a Deployment are new and ready."""
    return is_complete(plane.apps.read_namespaced_deployment(name, NAMESPACE))


def erase(officer: Connections, now: Report) -> Mapping[str, int | bool]:
    """Erase what names the person, as data protection does: resolve, erase, wait for the receipt. Returns the figures."""
    subject = anonymization_pb2.ResolveSubjectRequest(subject=PERSON)
    found = officer.anonymization.ResolveSubject(subject, timeout=60)
    request = registry_pb2.EraseRequest(document_ids=found.document_ids, reason="subject-request")
    erasure_id = officer.registry.Erase(request, timeout=60).erasure.erasure_id
    asked = registry_pb2.GetErasureRequest(erasure_id=erasure_id)

    def signed() -> tuple[registry_pb2.Erasure | None, str]:
        erasure = officer.registry.GetErasure(asked).erasure
        text = f"waiting for {', '.join(erasure.waiting_for)}"
        return (erasure if erasure.HasField("receipt") else None), text

    wait_for(signed, now, stalled_seconds=RECEIPT_SECONDS)
    left = officer.anonymization.ResolveSubject(subject, timeout=60).document_ids
    now(f"{len(found.document_ids)} documents are erased, and the receipt is signed")
    return {"documents": len(found.document_ids), "left": len(left), "receipt": True}


def describe_calls(calls: Calls) -> dict[str, Any]:
    """The figures of calls."""
    return {"calls": calls.total, "failed": calls.failed}
