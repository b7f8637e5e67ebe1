"""Calls from a pod of the cluster, by the client of callers and the address that docs/kubernetes/load.md gives them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.control_plane import ControlPlane
from tests.cluster.flow.caller import ANSWERED, STOP
from tests.cluster.nodes import NAMESPACE
from tests.unit.deploy.manifests import Document, container_of, pod_of
from tests.waiting import wait_until

# Where the pod finds the authority of the services' certificates.
AUTHORITY = "/run/authority"
ADDRESS = "dns:///inference-replicas.tailor:50051"
PROGRAM = Path(__file__).with_name("caller.py")
START_SECONDS, END_SECONDS = 180.0, 240.0


@dataclass
class Calls:
    """The calls of a pod: how many, and those that were not answered by an adapter, by the reason. Complete once the pod has ended."""

    counts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All calls."""
        return sum(self.counts.values())

    @property
    def failed(self) -> dict[str, int]:
        """Calls without an adapter's answer, by reason."""
        return {reason: count for reason, count in self.counts.items() if reason != ANSWERED}


@dataclass(frozen=True)
class CallerPod:
    """Makes pods that call: with the security settings of the overlay's objects, an image, the name of a model, and that of a Secret with a key."""

    plane: ControlPlane
    overlay: Sequence[Document]
    image: str
    model: str
    key_secret: str
    questions: Sequence[str]

    @contextmanager
    def run(self, name: str) -> Iterator[Calls]:
        """Call from the first answer on until the end of the block, and count."""
        self.plane.apply([self._program(), self.manifest(name)])
        wait_until(lambda: self._counts(name).get(ANSWERED), START_SECONDS, f"the first answer to pod {name}")
        calls = Calls()
        try:
            yield calls
        finally:
            self.plane.kubectl("exec", f"--namespace={NAMESPACE}", name, "--", "touch", str(STOP))
            core = self.plane.core
            wait_until(
                lambda: core.read_namespaced_pod(name, NAMESPACE).status.phase == "Succeeded", END_SECONDS, f"{name}"
            )
            calls.counts = self._counts(name)

    def manifest(self, name: str) -> Document:
        """The pod."""
        environment: Mapping[str, str] = {
            "ADDRESS": ADDRESS,
            "MODEL": self.model,
            "QUESTIONS": json.dumps(self.questions),
            "TAILOR_TLS_CA_FILE": f"{AUTHORITY}/ca.crt",
        }
        mounts = {"tmp": "/tmp", "program": "/program", "authority": AUTHORITY}
        key = {"name": "TAILOR_API_KEY", "valueFrom": {"secretKeyRef": {"name": self.key_secret, "key": "key"}}}
        container = {
            "name": "caller",
            "image": self.image,
            "command": ["python", f"/program/{PROGRAM.name}"],
            "env": [*({"name": item, "value": value} for item, value in environment.items()), key],
            "resources": {"limits": {"memory": "256Mi"}},
            "securityContext": container_of(self.overlay, "registry")["securityContext"],
            "volumeMounts": [{"name": mount, "mountPath": path} for mount, path in mounts.items()],
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_of(self.overlay, "registry")["securityContext"],
            "containers": [container],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "program", "configMap": {"name": "caller"}},
                {"name": "authority", "configMap": {"name": "tailor-ca"}},
            ],
        }
        # By this label, the network policies let it reach the services.
        metadata = _named(name) | {"labels": {"tailor/client": "true"}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def _counts(self, name: str) -> dict[str, int]:
        """The last line of the pod's log."""
        log = self.plane.kubectl("logs", f"--namespace={NAMESPACE}", name)
        lines = log.stdout.splitlines()
        counts: dict[str, int] = json.loads(lines[-1]) if lines and not log.returncode else {}
        return counts

    def _program(self) -> Document:
        data = {PROGRAM.name: PROGRAM.read_text(encoding="utf-8")}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named("caller"), "data": data}


def _named(name: str) -> dict[str, str]:
    return {"name": name, "namespace": NAMESPACE}
