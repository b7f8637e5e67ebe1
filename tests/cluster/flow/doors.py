"""Calls from outside of the cluster, with TLS: through the components `gateway`, `gateway-operators` and `ingress`, with Traefik as controller.

The callers are processes of this machine with their own file of hosts. Traefik runs in the cluster, and a Service has the node's address.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import tools_image
from tests.cluster.control_plane import ControlPlane
from tests.cluster.definitions import define
from tests.cluster.flow.caller import ANSWERED
from tests.cluster.flow.calls import Calls
from tests.cluster.flow.overlay import secret
from tests.cluster.isolation import NODE
from tests.cluster.node import Node
from tests.cluster.programs import GATEWAY, GATEWAY_MODULE, Programs
from tests.real.certificates import make_certificates
from tests.unit.deploy.manifests import Document
from tests.waiting import wait_until

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
IMAGE = "docker.io/tests/traefik:1"
# The rights that its project gives it.
RULES = "docs/content/reference/dynamic-configuration/kubernetes-{}-rbac.yml"
COMPONENTS = tuple(f"../../components/{name}" for name in ("gateway", "gateway-operators", "ingress"))
KINDS = ("Gateway", "GRPCRoute", "HTTPRoute", "BackendTLSPolicy", "Ingress")
DOMAIN, INGRESS_DOMAIN = "tailor.example", "ingress.example"
PARTS = {"api": "tailor-callers", "openai": "tailor-openai", "console": "tailor-console"}
HOSTS = [f"{part}.{domain}" for domain in (DOMAIN, INGRESS_DOMAIN) for part in PARTS]


def _move(part: str, ingress: str) -> dict[str, Any]:
    """A separate host for an Ingress: the Gateway has the usual one."""
    host = f"{part}.{INGRESS_DOMAIN}"
    changes = ({"op": "replace", "path": path, "value": host} for path in ("/spec/rules/0/host", "/spec/tls/0/hosts/0"))
    return {"target": {"kind": "Ingress", "name": ingress}, "patch": yaml.safe_dump([*changes])}


CLASS = yaml.safe_dump([{"op": "replace", "path": "/spec/gatewayClassName", "value": "traefik"}])
PATCHES: Sequence[Mapping[str, Any]] = (
    {"target": {"kind": "Gateway"}, "patch": CLASS},
    *(_move(part, ingress) for part, ingress in PARTS.items()),
    _move("api", "tailor-publishers"),
)
READY_SECONDS = 120.0
VISIT_SECONDS = 600.0


def open_doors(node: Node, programs: Programs, documents: Sequence[Document], folder: Path) -> None:
    """Start Traefik in the cluster and apply the routes among `documents`. Blocks until it has taken them.

    `folder` gets the certificates, and the hosts file of the callers.
    """
    plane, certificates = node.plane, make_certificates(folder, [], HOSTS)
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{NODE} {' '.join(HOSTS)}\n", encoding="utf-8")
    with tempfile.TemporaryFile() as archive:
        tools_image.write_program(archive, IMAGE, programs.folder / GATEWAY)
        archive.seek(0)
        node.load_image(archive)
    define(plane, programs, ["gateway"])
    plane.apply([*_controller(), *_rights(programs.source(GATEWAY_MODULE))])
    both = certificates.broker.read_text(encoding="utf-8")
    begin = both.index("-----BEGIN CERTIFICATE")
    values = {"tls.key": both[:begin], "tls.crt": both[begin:]}
    names = ("tailor-gateway-tls", *(f"tailor-ingress-{name.removeprefix('tailor-')}-tls" for name in PARTS.values()))
    plane.apply([{**secret(name, values), "type": "kubernetes.io/tls"} for name in names])
    plane.apply([item for item in documents if item["kind"] in KINDS])
    wait_until(lambda: _is_open(plane), READY_SECONDS, "the gateway")


@dataclass(frozen=True)
class OutsideCaller:
    """Calls from outside, with a caller's key. `folder` is that of `open_doors`."""

    folder: Path
    key: str
    model: str
    questions: Sequence[str]

    def visit(self, operator_key: str) -> Mapping[str, str]:
        """Make every kind of request, with `visitor.py`. Returns what each came to, by its name. Blocks."""
        given = {"CALLER_KEY": self.key, "OPERATOR_KEY": operator_key, "MODEL": self.model}
        environment = {**given, "QUESTION": self.questions[0]}
        done = subprocess.run(
            enter(self.folder, [sys.executable, "-m", "tests.cluster.flow.visitor"]),
            cwd=ROOT,
            env=variables(self.folder, environment),
            capture_output=True,
            text=True,
            timeout=VISIT_SECONDS,
            check=False,
        )
        assert not done.returncode, done.stderr
        visits: Mapping[str, str] = json.loads(done.stdout)
        return visits

    @contextmanager
    def run(self, name: str) -> Iterator[Calls]:
        """Call through the Gateway, from the first answer on until the end of the block, and count."""
        stop, log = self.folder / f"{name}.stop", self.folder / f"{name}.log"
        environment = {
            "ADDRESS": f"api.{DOMAIN}:443",
            "MODEL": self.model,
            "QUESTIONS": json.dumps(self.questions),
            "TAILOR_API_KEY": self.key,
            "STOP": str(stop),
        }
        command = enter(self.folder, [sys.executable, "-m", "tests.cluster.flow.caller"])
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=variables(self.folder, environment), stdout=output)
        calls = Calls()
        try:
            wait_until(lambda: _counts(log).get(ANSWERED), READY_SECONDS, "the first answer to a caller outside")
            yield calls
        finally:
            stop.touch()
            process.wait(VISIT_SECONDS)
            calls.counts = _counts(log)


def _counts(log: Path) -> dict[str, int]:
    lines = log.read_text(encoding="utf-8").splitlines()
    counts: dict[str, int] = json.loads(lines[-1]) if lines else {}
    return counts


def enter(folder: Path, command: Sequence[str]) -> list[str]:
    """The command with this file of hosts in place of the machine's, which stays as it is."""
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(folder / "hosts"), *command]


def variables(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a caller outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILOR_")}
    return {**kept, "TAILOR_TLS_CA_FILE": str(folder / "ca.pem"), **more}


def _controller() -> list[Document]:
    documents = list(yaml.safe_load_all((HERE / "traefik.yaml").read_text(encoding="utf-8")))
    (service,) = (item for item in documents if item["kind"] == "Service")
    # In place of a balancer's: kube-proxy takes what arrives there.
    service["spec"]["externalIPs"] = [NODE]
    return documents


def _rights(source: Path) -> Iterator[Document]:
    for name in ("gateway", "ingress-nginx"):
        text = (source / RULES.format(name)).read_text(encoding="utf-8")
        for item in yaml.safe_load_all(text):
            if item["kind"] == "ClusterRoleBinding":
                item["subjects"] = [{"kind": "ServiceAccount", "name": "traefik", "namespace": "gateway"}]
            yield item


def _is_open(plane: ControlPlane) -> bool:
    """Whether Traefik is ready, and says that the gateway's listeners work and that every route is attached to one."""
    deployment = plane.apps.read_namespaced_deployment("traefik", "gateway")
    if not deployment.status.ready_replicas:
        return False
    listed = plane.kubectl("get", "gateways,grpcroutes,httproutes", "--namespace=tailor", "--output=json")
    items = json.loads(listed.stdout)["items"]
    return all(_holds(item) for item in items)


def _holds(item: Document) -> bool:
    status = item.get("status", {})
    listeners, parents = status.get("listeners", []), status.get("parents", [])
    conditions = [entry for part in (*listeners, *parents) for entry in part.get("conditions", [])]
    states = [entry["status"] for entry in conditions if entry["type"] in ("Accepted", "ResolvedRefs")]
    return bool(states) and set(states) == {"True"}
