"""Components on top of prod: roles in place of keys, workers in a namespace of their own, and no object that falls into another namespace."""

from typing import Any

import pytest
import yaml

from services.training.launchers.kubernetes_job import LABEL, WORKER
from tailor.local.layout import SERVICES
from tailor.storage.buckets import ACCESS
from tests.unit.deploy.manifests import K8S, Document, container_of, environment_of, named, pod_of, render

WITHOUT_NAMESPACE = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
# What the services' own kustomizations and prod include already.
INCLUDED = {"service", "external-stores", "training-jobs", "gpu", "init", "size-135m", "tls"}
ON_TOP = sorted(path.name for path in (K8S / "components").iterdir() if path.name not in INCLUDED)
WORKERS = "tailor-workers"


@pytest.mark.parametrize("component", ON_TOP)
def test_every_object_that_a_component_adds_names_its_namespace(component: str) -> None:
    # An overlay on top of prod may have no `namespace`: without one here, the object would fall into the user's current namespace.
    folder = K8S / "components" / component
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    for file in kustomization.get("resources", []):
        for document in yaml.safe_load_all((folder / file).read_text(encoding="utf-8")):
            namespace = document["metadata"].get("namespace")
            assert document["kind"] in WITHOUT_NAMESPACE or namespace in ("tailor", WORKERS), document["kind"]


def test_every_policy_that_lets_pods_out_to_many_addresses_is_in_the_documentation() -> None:
    page = (K8S.parent / "docs" / "kubernetes" / "doors.md").read_text(encoding="utf-8")
    documents = render(
        "references", "teacher-egress", "external-models-egress", "judge-egress", "openid-egress", "workers-namespace"
    )
    wide = set()
    for document in documents:
        if document["kind"] == "NetworkPolicy":
            for rule in document["spec"].get("egress", []):
                blocks = [peer["ipBlock"]["cidr"] for peer in rule.get("to", []) if "ipBlock" in peer]
                if "to" not in rule or any(not cidr.endswith("/32") for cidr in blocks):
                    wide.add(document["metadata"]["name"])
    assert wide == {
        "training-cluster",
        *("broker", "object-store", "database"),
        *("references", "teacher", "judge", "external-models", "openid"),
    }
    assert all(f"`{name}`" in page for name in wide)


def test_other_dns_servers_are_open_to_services_and_workers() -> None:
    documents = render("workers-namespace", "dns-node-local", "dns-openshift")
    policies = [
        item["spec"] for item in documents if item["kind"] == "NetworkPolicy" and item["metadata"]["name"] == "names"
    ]
    assert len(policies) == 2
    for spec in policies:
        assert [rule["ports"][0]["port"] for rule in spec["egress"]] == [53, 53, 5353]
        assert spec["egress"][1]["to"] == [{"ipBlock": {"cidr": "169.254.20.10/32"}}]


def token_of(pod: Document) -> dict[str, Any]:
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "token"]
    token: dict[str, Any] = volume["projected"]["sources"][0]["serviceAccountToken"]
    return token


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_with_a_store_assumes_the_role_of_its_account(service: str) -> None:
    documents = render("web-identity")
    environment, pod = environment_of(documents, service), pod_of(documents, service)
    account = named(documents, "ServiceAccount")[service]["metadata"].get("annotations", {})
    if not ACCESS[service]:
        assert "TAILOR_S3_ROLE" not in environment and "eks.amazonaws.com/role-arn" not in account
        return
    assert environment["TAILOR_S3_ROLE"] == account["eks.amazonaws.com/role-arn"]
    assert environment["TAILOR_S3_ROLE"].endswith(f":role/tailor-{service}")
    assert environment["TAILOR_S3_TOKEN_FILE"] == "/run/tailor/token/token"
    # The API server does not accept tokens for another audience.
    assert token_of(pod) == {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}
    assert pod["automountServiceAccountToken"] is (service == "training")


def test_workers_and_the_check_of_buckets_have_roles_of_their_own() -> None:
    documents = render("web-identity")
    accounts = named(documents, "ServiceAccount")
    role = environment_of(documents, "training")["TAILOR_KUBERNETES_WORKER_ROLE"]
    assert role == accounts["training-worker"]["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    assert role.endswith(":role/tailor-training-worker")
    job = named(documents, "Job")["init-buckets"]["spec"]["template"]["spec"]
    variables = {entry["name"]: entry["value"] for entry in job["containers"][0]["env"]}
    assert job["serviceAccountName"] == "init-buckets" and token_of(job)["audience"] == "sts.amazonaws.com"
    assert variables["TAILOR_S3_ACCESS"] == "none"
    assert variables["TAILOR_S3_ROLE"].endswith(":role/tailor-init-buckets")


def test_the_training_service_has_rights_in_the_workers_namespace_only() -> None:
    documents = render("workers-namespace")
    roles = [document for document in documents if document["kind"] in ("Role", "RoleBinding")]
    assert {(role["kind"], role["metadata"]["namespace"]) for role in roles} == {
        ("Role", WORKERS),
        ("RoleBinding", WORKERS),
    }
    (binding,) = (role for role in roles if role["kind"] == "RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "training", "namespace": "tailor"}]
    environment = environment_of(documents, "training")
    assert environment["TAILOR_KUBERNETES_NAMESPACE"] == WORKERS
    (entry,) = [
        entry for entry in container_of(documents, "training")["env"] if entry["name"] == "TAILOR_KUBERNETES_NAMESPACE"
    ]
    assert set(entry) == {"name", "value"}
    assert environment["TAILOR_KUBERNETES_SERVICE_ACCOUNT"] == "training-worker"


def test_workers_find_training_and_each_other_and_run_as_nobody_of_the_services() -> None:
    documents = render("workers-namespace")
    there = {
        (document["kind"], document["metadata"]["name"])
        for document in documents
        if document["metadata"].get("namespace") == WORKERS
    }
    assert {
        ("ServiceAccount", "training-worker"),
        ("Service", "training-workers"),
        ("ResourceQuota", "workers"),
    } <= there
    assert not {(kind, name) for kind, name in there if kind in ("Deployment", "Secret", "ConfigMap")}
    (settings,) = (
        document["data"]
        for document in documents
        if document["kind"] == "ConfigMap" and document["metadata"]["name"].startswith("tailor-settings")
    )
    assert settings["TAILOR_TRAINING_ADDRESS"] == "training.tailor.svc:50051"
    namespaces = named(documents, "Namespace")
    assert namespaces[WORKERS]["metadata"]["labels"] == namespaces["tailor"]["metadata"]["labels"]


def policies(namespace: str) -> dict[str, Document]:
    return {
        document["metadata"]["name"]: document["spec"]
        for document in render("workers-namespace")
        if document["kind"] == "NetworkPolicy" and document["metadata"]["namespace"] == namespace
    }


def test_workers_in_their_namespace_reach_training_and_the_store_and_training_admits_them() -> None:
    there, here = policies(WORKERS), policies("tailor")
    assert there["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert set(there) == {"default-deny", "names", "training-worker", "object-store"}
    training = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tailor"}},
        "podSelector": {"matchLabels": {LABEL: "training"}},
    }
    assert there["training-worker"]["egress"][0] == {"to": [training], "ports": [{"protocol": "TCP", "port": 50051}]}
    # As in the services' namespace.
    assert there["object-store"]["egress"] == here["object-store"]["egress"]
    assert there["names"] == here["names"]
    workers = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": WORKERS}},
        "podSelector": {"matchLabels": {LABEL: WORKER}},
    }
    assert here["training-worker-calls"]["ingress"] == [
        {"from": [workers], "ports": [{"protocol": "TCP", "port": "rpc"}]}
    ]
    assert here["training-worker-calls"]["podSelector"] == {"matchLabels": {LABEL: "training"}}
    assert "training-worker" not in here


def test_inference_and_workers_share_a_volume_that_outlives_their_pods() -> None:
    documents = render("base-cache", "workers-namespace", "base-cache-workers")
    claims = {
        document["metadata"]["namespace"]: document["spec"]
        for document in documents
        if document["kind"] == "PersistentVolumeClaim" and document["metadata"]["name"] == "base-cache"
    }
    assert set(claims) == {"tailor", WORKERS} and claims["tailor"] == claims[WORKERS]
    inference, training = environment_of(documents, "inference"), environment_of(documents, "training")
    (volume,) = [volume for volume in pod_of(documents, "inference")["volumes"] if volume["name"] == "base-cache"]
    assert (
        volume["persistentVolumeClaim"]["claimName"] == training["TAILOR_KUBERNETES_BASE_CACHE_CLAIM"] == "base-cache"
    )
    mounts = {mount["name"]: mount["mountPath"] for mount in container_of(documents, "inference")["volumeMounts"]}
    assert mounts["base-cache"] == inference["TAILOR_BASE_CACHE_DIR"]
    # The files must fit, with what a pod adds before it removes others.
    assert int(inference["TAILOR_BASE_CACHE_GIB"]) < int(claims["tailor"]["resources"]["requests"]["storage"][:-2])
    quota = named(documents, "ResourceQuota")["workers"]["spec"]["hard"]
    assert int(quota["persistentvolumeclaims"]) >= 1


def test_the_console_reaches_an_openid_provider_with_its_clients_secret_in_a_file() -> None:
    documents = render("openid-egress")
    (policy,) = [item["spec"] for item in documents if item["metadata"]["name"] == "openid"]
    assert policy["podSelector"]["matchExpressions"][0]["values"] == ["console"]
    assert [rule["ports"] for rule in policy["egress"]] == [[{"protocol": "TCP", "port": 443}]]
    container, pod = container_of(documents, "console"), pod_of(documents, "console")
    environment = {entry["name"]: entry for entry in container["env"]}
    issuer = environment["TAILOR_OIDC_ISSUER"]["valueFrom"]["secretKeyRef"]
    assert issuer == {"name": "tailor-openid", "key": "TAILOR_OIDC_ISSUER"}
    assert environment["TAILOR_OIDC_CLIENT_SECRET_FILE"]["value"] == "/run/tailor/openid/client-secret"
    (volume,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "openid"]
    assert (volume["secretName"], volume["items"]) == (
        "tailor-openid",
        [{"key": "client-secret", "path": "client-secret"}],
    )
