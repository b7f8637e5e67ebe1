"""The network policies as a plugin that enforces them would: a call within the namespace needs one that lets it out and one that lets it in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.unit.deploy.manifests import Document

Labels = Mapping[str, str]
Policies = list[dict[str, Any]]
NAME = "app.kubernetes.io/name"
WITH_PODS = ("Deployment", "StatefulSet", "Job")


def matches(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a label selector selects a pod."""
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def labels_of(selector: Mapping[str, Any]) -> Iterator[Labels]:
    """The labels of each kind of pod that a selector names."""
    fixed = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    for expression in expressions:
        for value in expression["values"]:
            yield {**fixed, expression["key"]: value}
    if fixed and not expressions:
        yield fixed


def ports_of(pod: Document) -> dict[str | int, int]:
    """The numbers of a pod's ports, by name and by number."""
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
    numbers: dict[str | int, int] = {port["containerPort"]: port["containerPort"] for port in ports}
    return numbers | {port["name"]: port["containerPort"] for port in ports}


def lets_out(policies: Policies, here: Labels, there: Labels, port: int) -> bool:
    """Whether one of the policies about the pod `here` lets it call a port of the pod `there`."""
    for policy in policies:
        for rule in policy.get("egress", []) if matches(policy["podSelector"], here) else []:
            peers = [peer["podSelector"] for peer in rule.get("to", []) if set(peer) == {"podSelector"}]
            is_peer = "to" not in rule or any(matches(selector, there) for selector in peers)
            if is_peer and port in {item["port"] for item in rule.get("ports", [{"port": port}])}:
                return True
    return False


def let_in(policies: Policies, pod: Document) -> Iterator[tuple[Labels, int]]:
    """The labels of pods in the namespace that a policy admits to a pod, and the port."""
    for policy in policies:
        for rule in policy.get("ingress", []) if matches(policy["podSelector"], pod["metadata"]["labels"]) else []:
            for peer in rule.get("from", []):
                callers = labels_of(peer["podSelector"]) if set(peer) == {"podSelector"} else ()
                for labels in callers:
                    for port in rule.get("ports", []):
                        yield labels, ports_of(pod).get(port["port"], port["port"])


def find_calls(documents: Sequence[Document]) -> dict[tuple[str, str, int], bool]:
    """The calls that are let in, by the caller's label, the pod called and the port, and whether they are let out too."""
    policies = [document["spec"] for document in documents if document["kind"] == "NetworkPolicy"]
    pods = [document["spec"]["template"] for document in documents if document["kind"] in WITH_PODS]
    calls = {}
    for pod in pods:
        labels = pod["metadata"]["labels"]
        for caller, port in let_in(policies, pod):
            name = ",".join(f"{key}={value}" for key, value in caller.items())
            calls[name, labels[NAME], port] = lets_out(policies, caller, labels, port)
    return calls
