"""Rights of each ServiceAccount in the cluster, asked with its own token."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from kubernetes import client

from tests.cluster.nodes import SECONDS, refused
from tests.cluster.spaces import Space
from tests.waiting import wait_until

FORBIDDEN = 403
SERVICES = ("anonymization", "console", "evaluation", "inference", "ingestion", "registry", "synthetic", "training")
JOB: dict[str, Any] = {
    "metadata": {"name": "any"},
    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "any", "image": "any"}]}}},
}
# The uses of a stolen token.
STEALING: Mapping[str, Callable[[client.ApiClient, str], Any]] = {
    "read Secrets": lambda api, place: client.CoreV1Api(api).list_namespaced_secret(place),
    "read one Secret": lambda api, place: client.CoreV1Api(api).read_namespaced_secret("tailor-training-worker", place),
    "read ConfigMaps": lambda api, place: client.CoreV1Api(api).list_namespaced_config_map(place),
    "make pods": lambda api, place: client.CoreV1Api(api).create_namespaced_pod(place, {"metadata": {"name": "any"}}),
    "delete pods": lambda api, place: client.CoreV1Api(api).delete_namespaced_pod("any", place),
    "run commands": lambda api, place: client.CoreV1Api(api).connect_get_namespaced_pod_exec(
        "any", place, command=["id"]
    ),
    "change Deployments": lambda api, place: client.AppsV1Api(api).patch_namespaced_deployment("registry", place, {}),
    "make tokens": lambda api, place: client.CoreV1Api(api).create_namespaced_service_account_token(
        "registry", place, {}
    ),
    "give rights": lambda api, place: client.RbacAuthorizationV1Api(api).patch_namespaced_role(
        "training-jobs", place, {}
    ),
    "see nodes": lambda api, place: client.CoreV1Api(api).list_node(),
    "see namespaces": lambda api, place: client.CoreV1Api(api).list_namespace(),
    "see other namespaces' pods": lambda api, place: client.CoreV1Api(api).list_namespaced_pod("kube-system"),
    "make Jobs elsewhere": lambda api, place: client.BatchV1Api(api).create_namespaced_job("default", JOB),
    "change Jobs": lambda api, place: client.BatchV1Api(api).patch_namespaced_job("any", place, {}),
}
TRAINING: Mapping[str, Callable[[client.ApiClient, str], Any]] = {
    "make Jobs": lambda api, place: client.BatchV1Api(api).create_namespaced_job(place, JOB, dry_run="All"),
    "list Jobs": lambda api, place: client.BatchV1Api(api).list_namespaced_job(place),
    "list pods": lambda api, place: client.CoreV1Api(api).list_namespaced_pod(place),
    "list events": lambda api, place: client.CoreV1Api(api).list_namespaced_event(place),
}


@pytest.fixture(scope="module")
def prod(space: Space) -> Space:
    """The prod overlay in a new namespace."""
    space.apply(space.prod())
    return space


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_cannot_do_what_a_thief_of_its_token_would(prod: Space, service: str) -> None:
    assert answers(prod, service, STEALING) == dict.fromkeys(STEALING, FORBIDDEN)


@pytest.mark.parametrize("service", SERVICES)
def test_only_training_sees_pods_and_makes_jobs(prod: Space, service: str) -> None:
    assert answers(prod, service, TRAINING) == dict.fromkeys(TRAINING, 0 if service == "training" else FORBIDDEN)


def answers(space: Space, service: str, calls: Mapping[str, Callable[[client.ApiClient, str], Any]]) -> dict[str, int]:
    """The status with which each call of a service's account is refused, 0 if it is answered."""
    api = space.plane.api(space.plane.service_account_token(space.namespace, service))
    return {what: refused(partial(ask, api, space.namespace)) for what, ask in calls.items()}


def test_no_pod_of_a_service_but_training_holds_a_token(prod: Space) -> None:
    def holders() -> set[str]:
        pods = prod.plane.core.list_namespaced_pod(prod.namespace).items
        return {
            pod.metadata.labels["app.kubernetes.io/name"]
            for pod in pods
            if any(volume.projected for volume in pod.spec.volumes or [])
        }

    wait_until(holders, SECONDS, "a pod with a token")
    assert holders() == {"training"}
