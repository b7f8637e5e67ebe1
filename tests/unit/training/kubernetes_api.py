"""An in-memory Kubernetes API over HTTP for the real client: Jobs, pods, events and Kueue's Workloads, with controllers that tests drive."""

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
from kubernetes import client

SCHEMAS = "1.37"
JOB = "batch.kubernetes.io/job-name"
Json = dict[str, Any]


class Refused(Exception):
    """An error that the API answers with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": "Refused", "message": message}


class Cluster:
    """Jobs, their pods, and a history for watches. Every change is a new resource version."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {"jobs": {}, "pods": {}, "events": {}, "workloads": {}}
        self.selectors: dict[str, dict[str, str]] = {}
        self.calls: list[tuple[str, str]] = []
        self.refuses: Refused | None = None
        self.forbidden: set[str] = set()
        self.silent = False
        self.no_pods = False
        self.cuts = 0
        self._version = 1
        self._history: list[tuple[int, str, str, Json]] = []
        self._forgotten = 0
        self.changed = threading.Condition(threading.RLock())

    # The API's operations.

    def create(self, job: Json) -> Json:
        """Store a Job, and create its pods unless it is suspended."""
        with self.changed:
            try:
                kubernetes_validate.validate(job, SCHEMAS, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise Refused(422, error.message) from None
            name = job["metadata"]["name"]
            if name in self.objects["jobs"]:
                raise Refused(409, f'jobs.batch "{name}" already exists')
            stored = copy.deepcopy(job)
            stored["metadata"]["uid"] = f"uid-of-{name}"
            self._put("jobs", stored, "ADDED")
            if not job["spec"]["suspend"]:
                self._make_pods(name)
            return self.objects["jobs"][name]

    def delete(self, name: str) -> Json:
        """Remove a Job and its pods."""
        with self.changed:
            if name not in self.objects["jobs"]:
                raise Refused(404, f'jobs.batch "{name}" not found')
            for pod in self.pods_of(name):
                self._remove("pods", pod["metadata"]["name"])
            self._remove("jobs", name)
            return {"kind": "Status", "status": "Success"}

    def everything(self, kind: str) -> Json:
        """All objects of a kind, and their version."""
        with self.changed:
            items = list(self.objects[kind].values())
            return {"kind": "List", "metadata": {"resourceVersion": str(self._version)}, "items": copy.deepcopy(items)}

    def after(self, kind: str, version: int) -> list[tuple[int, str, Json]]:
        """Changes after a version. Raises Refused (410) if they are no longer known."""
        with self.changed:
            if version < self._forgotten:
                raise Refused(410, "too old resource version")
            return [
                (number, what, item)
                for number, owner, what, item in self._history
                if owner == kind and number > version
            ]

    # Events that tests trigger.

    def pods_of(self, name: str) -> list[Json]:
        return [pod for pod in self.objects["pods"].values() if pod["metadata"]["labels"][JOB] == name]

    def admit(self, name: str) -> None:
        """Kueue admits a Job."""
        with self.changed:
            self.objects["jobs"][name]["spec"]["suspend"] = False
            self._put("jobs", self.objects["jobs"][name], "MODIFIED")
            self._make_pods(name)

    def push_out(self, name: str) -> None:
        """Kueue evicts a Job: it is suspended, and its pods are deleted."""
        with self.changed:
            for pod in self.pods_of(name):
                self._remove("pods", pod["metadata"]["name"])
            self.objects["jobs"][name]["spec"]["suspend"] = True
            self._put("jobs", self.objects["jobs"][name], "MODIFIED")

    def run_pods(self, name: str) -> None:
        for pod in self.pods_of(name):
            self._status(pod, {"phase": "Running", "containerStatuses": [_container({"running": {}})]})

    def unschedulable(self, name: str, message: str) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self._status(self.pods_of(name)[0], {"phase": "Pending", "conditions": [condition]})

    def stuck(self, name: str, reason: str, message: str) -> None:
        """A container cannot be created."""
        waiting = _container({"waiting": {"reason": reason, "message": message}})
        started = datetime.now(UTC).isoformat()
        self._status(self.pods_of(name)[0], {"phase": "Pending", "startTime": started, "containerStatuses": [waiting]})

    def end(self, name: str, code: int, index: int = 0, *, disrupted: bool = False) -> None:
        """A pod ends, and its Job by its failure rules."""
        with self.changed:
            conditions = (
                [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}] if disrupted else []
            )
            pod = self.pods_of(name)[index]
            ended = _container({"terminated": {"exitCode": code}})
            phase = "Failed" if code else "Succeeded"
            self._status(pod, {"phase": phase, "conditions": conditions, "containerStatuses": [ended]})
            message = self._rule(name, pod, code, disrupted=disrupted)
            if message:
                self.finish(name, "Failed", "PodFailurePolicy", message)
            elif all(each["status"]["phase"] == "Succeeded" for each in self.pods_of(name)):
                self.finish(name, "Complete", "CompletionsReached", "")

    def finish(self, name: str, kind: str, reason: str, message: str, seconds: int = 0) -> None:
        """Set a Job's final condition. It was decided `seconds` after its start, and its pods took a minute more to end."""
        started = datetime(2026, 11, 27, 8, tzinfo=UTC)
        decided = started + timedelta(seconds=seconds)
        times = {kind: decided + timedelta(minutes=1)}
        if kind == "Failed":
            times["FailureTarget"] = decided
        conditions = [
            {
                "type": each,
                "status": "True",
                "reason": reason,
                "message": message,
                "lastTransitionTime": f"{time:%FT%TZ}",
            }
            for each, time in times.items()
        ]
        status = {"startTime": f"{started:%FT%TZ}", "conditions": conditions}
        self._status(self.objects["jobs"][name], status, "jobs")

    def refuse_pods(self, name: str, message: str, count: int = 1, seen: str = "2026-11-27T08:00:00Z") -> None:
        """The Job controller's event about pods that could not be created (pkg/controller/controller_utils.go)."""
        self._warn({"kind": "Job", "name": name, "apiVersion": "batch/v1"}, "FailedCreate", message, count, seen)

    def warn_about_pod(self, name: str, reason: str, message: str) -> None:
        """The kubelet's event about the first pod of a Job."""
        self._warn({"kind": "Pod", "name": f"{name}-0", "apiVersion": "v1"}, reason, message)

    def _warn(self, about: Json, reason: str, message: str, count: int = 1, seen: str = "2026-11-27T08:00:00Z") -> None:
        name = about["name"]
        event = {
            "metadata": {"name": f"{name}.{len(self.objects['events']):x}", "namespace": "tailor"},
            "involvedObject": {**about, "namespace": "tailor", "uid": f"uid-of-{name}"},
            "reason": reason,
            "message": message,
            "source": {"component": "any"},
            "firstTimestamp": "2026-11-27T07:00:00Z",
            "lastTimestamp": seen,
            "count": count,
            "type": "Warning",
            "eventTime": None,
            "reportingComponent": "any",
            "reportingInstance": "",
        }
        with self.changed:
            self._put("events", event, "ADDED")

    def hold_back(self, name: str, *conditions: tuple[str, str, str, str], checks: tuple[Json, ...] = ()) -> None:
        """Kueue's Workload of a Job, with its conditions (type, status, reason, message) and admission checks."""
        status: Json = {
            "conditions": [
                {
                    "type": kind,
                    "status": value,
                    "reason": reason,
                    "message": message,
                    "lastTransitionTime": "2026-11-27T08:00:00Z",
                    "observedGeneration": 1,
                }
                for kind, value, reason, message in conditions
            ]
        }
        if checks:
            status["admissionChecks"] = list(checks)
        labels = {"kueue.x-k8s.io/job-uid": self.objects["jobs"][name]["metadata"]["uid"]}
        metadata = {"name": f"job-{name}-3f1c2", "namespace": "tailor", "labels": labels}
        with self.changed:
            self._put("workloads", {"metadata": metadata, "spec": {"active": True}, "status": status}, "ADDED")

    def lose_pods(self, name: str) -> None:
        """Delete the pods' objects."""
        with self.changed:
            for pod in self.pods_of(name):
                self._remove("pods", pod["metadata"]["name"])

    def forget_history(self) -> None:
        """Like a compaction: forget older versions, and end every watch."""
        with self.changed:
            self._version += 1
            self._forgotten, self._history = self._version, []
            self.cut()

    def cut(self) -> None:
        """End every running watch."""
        with self.changed:
            self.cuts += 1
            self.changed.notify_all()

    def _make_pods(self, name: str) -> None:
        if self.no_pods:
            return
        job = self.objects["jobs"][name]
        for index in range(job["spec"].get("parallelism", 1)):
            template = copy.deepcopy(job["spec"]["template"])
            labels = {**template["metadata"]["labels"], JOB: name}
            metadata = {"name": f"{name}-{index}", "labels": labels, "uid": f"uid-of-{name}-{index}"}
            self._put("pods", {"metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}}, "ADDED")

    def _rule(self, name: str, pod: Json, code: int, *, disrupted: bool) -> str:
        """Kubernetes' message for the rule that a failed pod matches (pkg/controller/job/pod_failure_policy.go)."""
        for index, rule in enumerate(self.objects["jobs"][name]["spec"]["podFailurePolicy"]["rules"]):
            where = f"matching {rule['action']} rule at index {index}"
            if "onPodConditions" in rule and disrupted:
                return f"Pod tailor/{pod['metadata']['name']} has condition DisruptionTarget {where}"
            if "onExitCodes" in rule and code:
                inside = code in rule["onExitCodes"]["values"]
                if inside is (rule["onExitCodes"]["operator"] == "In"):
                    return f"Container worker for pod tailor/{pod['metadata']['name']} failed with exit code {code} {where}"
        return ""

    def _status(self, item: Json, status: Json, kind: str = "pods") -> None:
        with self.changed:
            item["status"] = status
            self._put(kind, item, "MODIFIED")

    def _put(self, kind: str, item: Json, what: str) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self.objects[kind][item["metadata"]["name"]] = item
        self._history.append((self._version, kind, what, copy.deepcopy(item)))
        self.changed.notify_all()

    def _remove(self, kind: str, name: str) -> None:
        self._version += 1
        item = self.objects[kind].pop(name)
        item["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, kind, "DELETED", copy.deepcopy(item)))
        self.changed.notify_all()


def _container(state: Json) -> Json:
    return {"name": "worker", "state": state}


class Handler(BaseHTTPRequestHandler):
    """Serves the cluster."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        kind = urlsplit(self.path).path.rpartition("/")[2]
        self.cluster.selectors[kind] = {name: value for name, value in query.items() if name.endswith("Selector")}
        if query.get("watch") == "true" or query.get("watch") == "True":
            self._answer("watch", kind, lambda: self._watch(kind, int(query["resourceVersion"])))
        else:
            self._answer("list", kind, lambda: self.cluster.everything(kind))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer("create", "jobs", lambda: self.cluster.create(body))

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer("delete", "jobs", lambda: self.cluster.delete(urlsplit(self.path).path.rpartition("/")[2]))

    def _answer(self, verb: str, kind: str, work: Any) -> None:
        self.cluster.calls.append((verb, kind))
        if self.cluster.silent:
            self.close_connection = True
            return
        try:
            if self.cluster.refuses is not None:
                raise self.cluster.refuses
            if kind in self.cluster.forbidden:
                raise Refused(
                    403, f'{kind} is forbidden: User "system:serviceaccount:tailor:training" cannot {verb} it'
                )
            answer = work()
        except Refused as refused:
            self._send(refused.code, refused.body)
        else:
            if answer is not None:
                self._send(200, answer)

    def _send(self, code: int, body: Json) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _watch(self, kind: str, version: int) -> None:
        """Stream changes until the watches end."""
        cuts = self.cluster.cuts
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while self.cluster.cuts == cuts:
            with self.cluster.changed:
                try:
                    found = self.cluster.after(kind, version)
                except Refused as refused:
                    self._line("ERROR", refused.body)
                    break
                if not found:
                    self.cluster.changed.wait(0.2)
            for number, what, item in found:
                self._line(what, item)
                version = number
        self.wfile.write(b"0\r\n\r\n")

    def _line(self, what: str, item: Json) -> None:
        line = json.dumps({"type": what, "object": item}).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()


@contextmanager
def serve() -> Iterator[tuple[Cluster, tuple[client.BatchV1Api, client.CoreV1Api, client.CustomObjectsApi]]]:
    """A cluster with real clients of its API."""
    cluster = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    configuration = client.Configuration()
    configuration.host = f"http://127.0.0.1:{server.server_port}"
    configuration.retries = False
    api = client.ApiClient(configuration)
    try:
        yield cluster, (client.BatchV1Api(api), client.CoreV1Api(api), client.CustomObjectsApi(api))
    finally:
        cluster.cut()
        server.shutdown()
        server.server_close()
