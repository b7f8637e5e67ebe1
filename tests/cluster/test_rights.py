"""Rights of each ServiceAccount in the cluster, asked with its own token."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from kubernetes import client

from tests.cluster.control_plane import ControlPlane
from tests.cluster.nodes import NAMESPACE, refused
from tests.unit.deploy.manifests import build

FORBIDDEN = 403
SERVICES = ("anonymization", "console", "evaluation", "inference", "ingestion", "registry", "synthetic", "training")
JOB: dict[str, Any] = {
    "metadata": {"name": "any"},
    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "any", "image": "any"}]}}},
}
# The uses of a stolen token.
STEALING: Mapping[str, Callable[[client.ApiClient], Any]] = {
    "read Secrets": lambda api: client.CoreV1Api(api).list_namespaced_secret(NAMESPACE),
    "read one Secret": lambda api: client.CoreV1Api(api).read_namespaced_secret("tailor-training-worker", NAMESPACE),
    "read ConfigMaps": lambda api: client.CoreV1Api(api).list_namespaced_config_map(NAMESPACE),
    "make pods": lambda api: client.CoreV1Api(api).create_namespaced_pod(NAMESPACE, {"metadata": {"name": "any"}}),
    "delete pods": lambda api: client.CoreV1Api(api).delete_namespaced_pod("any", NAMESPACE),
    "run commands": lambda api: client.CoreV1Api(api).connect_get_namespaced_pod_exec("any", NAMESPACE, command=["id"]),
    "change Deployments": lambda api: client.AppsV1Api(api).patch_namespaced_deployment("registry", NAMESPACE, {}),
    "make tokens": lambda api: client.CoreV1Api(api).create_namespaced_service_account_token("registry", NAMESPACE, {}),
    "give rights": lambda api: client.RbacAuthorizationV1Api(api).patch_namespaced_role("training-jobs", NAMESPACE, {}),
    "see nodes": lambda api: client.CoreV1Api(api).list_node(),
    "see namespaces": lambda api: client.CoreV1Api(api).list_namespace(),
    "see other namespaces' pods": lambda api: client.CoreV1Api(api).list_namespaced_pod("kube-system"),
    "make Jobs elsewhere": lambda api: client.BatchV1Api(api).create_namespaced_job("default", JOB),
    "change Jobs": lambda api: client.BatchV1Api(api).patch_namespaced_job("any", NAMESPACE, {}),
}
TRAINING: Mapping[str, Callable[[client.ApiClient], Any]] = {
    "make Jobs": lambda api: client.BatchV1Api(api).create_namespaced_job(NAMESPACE, JOB, dry_run="All"),
    "list Jobs": lambda api: client.BatchV1Api(api).list_namespaced_job(NAMESPACE),
    "list pods": lambda api: client.CoreV1Api(api).list_namespaced_pod(NAMESPACE),
    "list events": lambda api: client.CoreV1Api(api).list_namespaced_event(NAMESPACE),
}


@pytest.fixture(scope="module")
def prod(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The prod overlay."""
    plane.apply(build({"resources": ["../prod"]}))
    yield plane


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_cannot_do_what_a_thief_of_its_token_would(prod: ControlPlane, service: str) -> None:
    api = prod.api(prod.service_account_token(NAMESPACE, service))
    assert {what: refused(partial(ask, api)) for what, ask in STEALING.items()} == dict.fromkeys(STEALING, FORBIDDEN)


@pytest.mark.parametrize("service", SERVICES)
def test_only_training_sees_pods_and_makes_jobs(prod: ControlPlane, service: str) -> None:
    api = prod.api(prod.service_account_token(NAMESPACE, service))
    wanted = 0 if service == "training" else FORBIDDEN
    assert {what: refused(partial(ask, api)) for what, ask in TRAINING.items()} == dict.fromkeys(TRAINING, wanted)


def test_no_pod_of_a_service_but_training_holds_a_token(prod: ControlPlane) -> None:
    pods = prod.core.list_namespaced_pod(NAMESPACE).items
    holders = {
        pod.metadata.labels["app.kubernetes.io/name"]
        for pod in pods
        if any(volume.projected for volume in pod.spec.volumes or [])
    }
    assert holders == {"training"}
