"""Who reaches whom: connections from the pods of an installation, compared with those that its network policies let through."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from tailor.local.layout import SERVICES
from tests.cluster.control_plane import ControlPlane
from tests.cluster.nodes import NAMESPACE
from tests.unit.deploy.manifests import Document, container_of, pod_of
from tests.unit.deploy.policies import NAME, find_calls, matches
from tests.waiting import wait_until

RPC = 50051
# A pod of another namespace.
STRANGER, ELSEWHERE = "stranger", "default"
START_SECONDS = 120.0
# Runs in a pod. A policy that refuses a connection answers at once, or not at all.
PROGRAM = """
import json, socket, sys
reached = []
for address in sys.argv[1:]:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
    except OSError:
        continue
    reached.append(address)
print(json.dumps(reached))
"""


@dataclass(frozen=True)
class Reach:
    """Attempts to connect: how many succeeded and failed, and those that ended otherwise than the policies say, as `CALLER to CALLED`."""

    open: int
    closed: int
    surprises: Sequence[str]


def try_all(plane: ControlPlane, overlay: Sequence[Document], image: str, stores: Mapping[str, str]) -> Reach:
    """Connect from a pod of each service, and from one of another namespace, to every service, store and the Kubernetes API."""
    plane.apply([_stranger(overlay, image)])
    where = (STRANGER, ELSEWHERE)
    wait_until(lambda: plane.core.read_namespaced_pod(*where).status.phase == "Running", START_SECONDS, STRANGER)
    services = {service: f"{_address_of_pod(plane, service)}:{RPC}" for service in SERVICES if service != "console"}
    api = plane.core.read_namespaced_service("kubernetes", "default").spec.cluster_ip
    targets = {**services, **stores, "kubernetes": f"{api}:443"}
    counts = {True: 0, False: 0}
    surprises = []
    for caller in (*SERVICES, STRANGER):
        reached = _connect(plane, caller, list(targets.values()))
        expected = find_open(overlay, caller, targets)
        for called, address in targets.items():
            # Policies do not keep a pod from itself.
            if called == caller:
                continue
            is_open = address in reached
            counts[is_open] += 1
            if is_open != (called in expected):
                surprises.append(f"{caller} to {called}")
    return Reach(counts[True], counts[False], surprises)


def find_open(overlay: Sequence[Document], caller: str, targets: Mapping[str, str]) -> set[str]:
    """The targets, by name, that the policies let a caller reach."""
    others = {name: address for name, address in targets.items() if name not in SERVICES}
    if caller == STRANGER:
        # No policy is about it, so it may leave its namespace; the services' policies do not let it in.
        return {*others}
    labels = _labels(overlay, caller)
    calls = (called for words, called, port in find_calls(overlay) if port == RPC and _stands_for(labels, words))
    return {*calls} | {name for name, address in others.items() if _is_let_out(overlay, labels, address)}


def _stands_for(labels: Mapping[str, str], words: str) -> bool:
    return dict(word.split("=", 1) for word in words.split(",")).items() <= labels.items()


def _is_let_out(overlay: Sequence[Document], labels: Mapping[str, str], address: str) -> bool:
    """Whether a policy lets the pod reach an address outside of the namespace."""
    host, _, port = address.rpartition(":")
    policies = [item["spec"] for item in overlay if item["kind"] == "NetworkPolicy"]
    rules = [rule for policy in policies if matches(policy["podSelector"], labels) for rule in policy.get("egress", [])]
    return any(
        int(port) in {item["port"] for item in rule.get("ports", [])}
        and any(ip_address(host) in ip_network(cidr) for cidr in _networks(rule))
        for rule in rules
    )


def _networks(rule: Mapping[str, object]) -> Iterator[str]:
    peers = rule.get("to", [{"ipBlock": {"cidr": "0.0.0.0/0"}}])
    assert isinstance(peers, list)
    yield from (peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer)


def _labels(overlay: Sequence[Document], service: str) -> Mapping[str, str]:
    (deployment,) = (item for item in overlay if item["kind"] == "Deployment" and item["metadata"]["name"] == service)
    labels: Mapping[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


def _connect(plane: ControlPlane, caller: str, addresses: Sequence[str]) -> set[str]:
    """The addresses that a pod reaches."""
    namespace, pod = (ELSEWHERE, STRANGER) if caller == STRANGER else (NAMESPACE, f"deployment/{caller}")
    done = plane.kubectl("exec", f"--namespace={namespace}", pod, "--", "python", "-c", PROGRAM, *addresses)
    assert not done.returncode, done.stderr
    return set(json.loads(done.stdout))


def _address_of_pod(plane: ControlPlane, service: str) -> str:
    pods = plane.core.list_namespaced_pod(NAMESPACE, label_selector=f"{NAME}={service}").items
    return str(next(pod.status.pod_ip for pod in pods if pod.metadata.deletion_timestamp is None))


def _stranger(overlay: Sequence[Document], image: str) -> Document:
    container = {
        "name": "stranger",
        "image": image,
        "command": ["sleep", "3600"],
        "securityContext": container_of(overlay, "registry")["securityContext"],
    }
    spec = {"securityContext": pod_of(overlay, "registry")["securityContext"], "containers": [container]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": STRANGER, "namespace": ELSEWHERE},
        "spec": {**spec, "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0},
    }
