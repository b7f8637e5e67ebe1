"""The Kubernetes manifests: every combination builds and validates, and keeps the rules of the house."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.make_secrets import make
from services.training.launchers.kubernetes_job import LABEL, RENDEZVOUS_PORT, SUBDOMAIN, WORKER
from tailor.local.layout import SERVICES, WITH_DATABASE
from tailor.storage.buckets import ACCESS
from tests.unit.deploy.policies import find_calls

ROOT = Path(__file__).parents[3]
K8S = ROOT / "k8s"
FILES = sorted(path for path in K8S.rglob("*.yaml") if "secrets" not in path.parts)
SCHEMAS = "1.37"
OVERLAYS = ("dev", "prod")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(K8S)))
def test_every_file_parses_and_is_of_a_known_kind(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        assert document["kind"]
        assert document["apiVersion"]


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_a_base_with_the_common_parts(service: str) -> None:
    kustomization = yaml.safe_load((K8S / "base" / service / "kustomization.yaml").read_text(encoding="utf-8"))
    assert kustomization["components"] == ["../../components/service"]
    deployment = yaml.safe_load((K8S / "base" / service / "deployment.yaml").read_text(encoding="utf-8"))
    assert deployment["metadata"]["name"] == service


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests with secrets made into the dev overlay."""
    if shutil.which("kubectl") is None and shutil.which("kustomize") is None:
        pytest.skip("neither kubectl nor kustomize is installed (apt-get install kubectl)")
    copy = tmp_path_factory.mktemp("k8s") / "k8s"
    shutil.copytree(K8S, copy, ignore=shutil.ignore_patterns("secrets"))
    make(copy / "overlays" / "dev")
    return copy


@cache
def render(tree: Path, overlay: str) -> tuple[dict[str, Any], ...]:
    """The documents that the overlay builds to."""
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    built = subprocess.run([*command, str(tree / "overlays" / overlay)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return tuple(yaml.safe_load_all(built.stdout))


def workloads(tree: Path, overlay: str) -> list[dict[str, Any]]:
    """Everything that has a pod template."""
    return [each for each in render(tree, overlay) if each["kind"] in ("Deployment", "StatefulSet", "Job")]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_validates_against_the_schemas(tree: Path, overlay: str) -> None:
    documents = render(tree, overlay)
    assert documents
    for document in documents:
        kubernetes_validate.validate(document, SCHEMAS, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted_and_bounded(tree: Path, overlay: str) -> None:
    for workload in workloads(tree, overlay):
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]) == {"requests", "limits"}
            assert container["image"].rpartition(":")[2] not in ("", "latest")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_lasting_pod_has_three_probes(tree: Path, overlay: str) -> None:
    for workload in workloads(tree, overlay):
        if workload["kind"] != "Job":
            (container,) = workload["spec"]["template"]["spec"]["containers"]
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_service_gets_its_own_secret_and_account(tree: Path, overlay: str) -> None:
    for workload in workloads(tree, overlay):
        name = workload["metadata"]["name"]
        if name in SERVICES:
            pod = workload["spec"]["template"]["spec"]
            assert pod["serviceAccountName"] == name
            secret = pod["containers"][0]["envFrom"][1]["secretRef"]["name"]
            assert secret == f"tailor-{name}" or secret.startswith(f"tailor-{name}-")
            assert pod["automountServiceAccountToken"] is (overlay == "prod" and name == "training")


def test_the_dev_overlay_refers_to_nothing_that_it_does_not_bring(tree: Path) -> None:
    documents = render(tree, "dev")
    brought = {(each["kind"], each["metadata"]["name"]) for each in documents}
    for workload in workloads(tree, "dev"):
        pod = workload["spec"]["template"]["spec"]
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in brought
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in brought
        for source in pod["containers"][0].get("envFrom", []):
            for kind, key in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
                if key in source:
                    assert (kind, source[key]["name"]) in brought


def test_the_prod_overlay_holds_no_secret_and_asks_for_gpus(tree: Path) -> None:
    documents = render(tree, "prod")
    assert not [each for each in documents if each["kind"] == "Secret"]
    (inference,) = (each for each in workloads(tree, "prod") if each["metadata"]["name"] == "inference")
    assert inference["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def clients(documents: tuple[dict[str, Any], ...], policy: str) -> set[str]:
    """The pods that an egress policy is about."""
    (found,) = (each for each in documents if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == policy)
    (expression,) = found["spec"]["podSelector"]["matchExpressions"]
    return set(expression["values"])


@pytest.mark.parametrize(("overlay", "suffix"), [("dev", "-clients"), ("prod", "")])
def test_a_service_reaches_only_the_stores_that_it_has_credentials_for(tree: Path, overlay: str, suffix: str) -> None:
    documents = render(tree, overlay)
    assert clients(documents, f"object-store{suffix}") & set(SERVICES) == {name for name in SERVICES if ACCESS[name]}
    assert clients(documents, f"database{suffix}") & set(SERVICES) == set(WITH_DATABASE)


# The contract admits synthetic to inference, which it calls by HTTP only. Workers in dev are processes of the training service.
NOT_CALLED = {("synthetic", "inference", 50051), (WORKER, "training", 50051)}


@pytest.mark.parametrize(("overlay", "caller"), [("prod", "tailor/client=true"), ("dev", "tailor/publisher=true")])
def test_what_a_policy_lets_in_another_one_lets_out(tree: Path, overlay: str, caller: str) -> None:
    calls = find_calls(render(tree, overlay))
    assert caller in {name for name, _, _ in calls}
    kept = {(name.removeprefix(f"{LABEL}="), *place) for (name, *place), is_let_out in calls.items() if not is_let_out}
    assert kept <= NOT_CALLED
    assert (WORKER, "training", 50051) not in kept or overlay == "dev"


def test_the_dev_brokers_settings_are_those_of_compose(tree: Path) -> None:
    (kafka,) = (each for each in workloads(tree, "dev") if each["metadata"]["name"] == "kafka")
    environment = {entry["name"]: entry["value"] for entry in kafka["spec"]["template"]["spec"]["containers"][0]["env"]}
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["kafka"][
        "environment"
    ]
    different = {name for name in compose if compose[name] != environment.get(name)}
    assert different <= {"KAFKA_ADVERTISED_LISTENERS", "KAFKA_LOG_DIRS", "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS"}


def test_publishers_reach_their_listener_only_and_the_console_reaches_none(tree: Path) -> None:
    documents = render(tree, "dev")
    assert clients(documents, "broker-clients") == {*SERVICES, "init-topics"} - {"console"}
    assert clients(render(tree, "prod"), "broker") == {*SERVICES, "init-topics"} - {"console"}
    (policy,) = (each for each in documents if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "broker")
    services, publishers = policy["spec"]["ingress"]
    assert [port["port"] for port in services["ports"]] == [19092]
    assert [port["port"] for port in publishers["ports"]] == [9092]
    assert "tailor/client" not in json.dumps(policy)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_replicas_with_stable_names_are_static_members_of_their_groups(tree: Path, overlay: str) -> None:
    folder = tree / "overlays" / f"stable-{overlay}"
    folder.mkdir(exist_ok=True)
    kustomization = {"resources": [f"../{overlay}"], "components": ["../../components/stable-members"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    documents = render(tree, folder.name)
    for document in documents:
        kubernetes_validate.validate(document, SCHEMAS, strict=True)
    sets = {each["metadata"]["name"]: each for each in documents if each["kind"] == "StatefulSet"}
    assert {"ingestion", "anonymization", "registry"} == set(sets) & set(SERVICES)
    for name in ("ingestion", "anonymization", "registry"):
        environment = sets[name]["spec"]["template"]["spec"]["containers"][0]["env"]
        member = next(entry for entry in environment if entry["name"] == "TAILOR_KAFKA_GROUP_INSTANCE_ID")
        assert member["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    replicas = {name: sets[name]["spec"]["replicas"] for name in ("ingestion", "anonymization", "registry")}
    assert set(replicas.values()) == ({2} if overlay == "prod" else {1})


def test_training_may_make_jobs_in_its_namespace_and_nothing_more(tree: Path) -> None:
    documents = render(tree, "prod")
    assert not [each for each in documents if each["kind"].startswith("ClusterRole")]
    (role,) = (each for each in documents if each["kind"] == "Role")
    assert role["metadata"]["namespace"] == "tailor"
    verbs = {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}
    read_only = {"list", "watch"}
    assert verbs == {
        "jobs": {"create", "delete", *read_only},
        "pods": read_only,
        "events": read_only,
        "workloads": read_only,
    }


def test_workers_on_several_nodes_find_and_reach_each_other_and_nobody_else_reaches_them(tree: Path) -> None:
    documents = render(tree, "prod")
    (service,) = (each for each in documents if each["kind"] == "Service" and each["metadata"]["name"] == SUBDOMAIN)
    workers = {LABEL: WORKER}
    assert (service["spec"]["clusterIP"], service["spec"]["selector"]) == ("None", workers)
    assert service["spec"]["ports"][0]["port"] == RENDEZVOUS_PORT
    policies = [each["spec"] for each in documents if each["kind"] == "NetworkPolicy"]
    about = [spec for spec in policies if spec["podSelector"].get("matchLabels") == workers]
    callers = [
        peer["podSelector"]["matchLabels"] for spec in about for rule in spec["ingress"] for peer in rule["from"]
    ]
    assert callers == [workers]
    reached = [
        rule for spec in about for rule in spec["egress"] if {"podSelector": {"matchLabels": workers}} in rule["to"]
    ]
    assert reached == [{"to": [{"podSelector": {"matchLabels": workers}}]}]


def test_a_worker_of_a_run_gets_the_image_of_its_service(tree: Path) -> None:
    (training,) = (each for each in workloads(tree, "prod") if each["metadata"]["name"] == "training")
    container = training["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["TAILOR_LAUNCHER"] == "kubernetes"
    assert environment["TAILOR_KUBERNETES_IMAGE"] == container["image"]


@pytest.mark.parametrize(
    ("component", "service", "variable"),
    [
        ("teacher", "synthetic", "TAILOR_TEACHER_API_KEY"),
        ("external-models", "evaluation", "TAILOR_EXTERNAL_MODEL_KEYS"),
        ("judge", "evaluation", "TAILOR_JUDGE_API_KEY"),
    ],
)
def test_a_component_for_a_model_elsewhere_lets_only_one_service_out_and_takes_its_key_from_a_secret(
    tree: Path, component: str, service: str, variable: str
) -> None:
    overlay = tree / "overlays" / f"with-{component}"
    overlay.mkdir(exist_ok=True)
    kustomization = {"resources": ["../prod"], "components": [f"../../components/{component}-egress"]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    documents = render(tree, overlay.name)
    for document in documents:
        kubernetes_validate.validate(document, SCHEMAS, strict=True)
    assert clients(documents, component) == {service}
    (policy,) = (each for each in documents if each["metadata"]["name"] == component)
    assert [rule["ports"] for rule in policy["spec"]["egress"]] == [[{"protocol": "TCP", "port": 443}]]
    (workload,) = (each for each in workloads(tree, overlay.name) if each["metadata"]["name"] == service)
    environment = workload["spec"]["template"]["spec"]["containers"][0]["env"]
    key = next(entry for entry in environment if entry["name"] == variable)
    assert key["valueFrom"]["secretKeyRef"] == {"name": f"tailor-{component}", "key": variable}
    assert not [each for each in render(tree, "prod") if each["metadata"]["name"] == component]


def test_synthetic_reaches_the_barrier_and_tailors_own_models(tree: Path) -> None:
    policies = {
        each["metadata"]["name"]: each["spec"] for each in render(tree, "prod") if each["kind"] == "NetworkPolicy"
    }

    def admits(policy: str, port: str | int) -> bool:
        rules = [rule for rule in policies[policy]["ingress"] if {"protocol": "TCP", "port": port} in rule["ports"]]
        expressions = [peer["podSelector"]["matchExpressions"][0] for rule in rules for peer in rule["from"]]
        return any("synthetic" in expression["values"] for expression in expressions)

    assert admits("anonymization-calls", "rpc") and admits("inference-calls", "http")
    reached = {
        (name, rule["ports"][0]["port"])
        for rule in policies["synthetic-calls"]["egress"]
        for name in rule["to"][0]["podSelector"]["matchExpressions"][0]["values"]
    }
    assert {("anonymization", 50051), ("inference", 8000)} <= reached
