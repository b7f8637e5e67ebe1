"""The Job of a worker: valid and restricted with all settings."""

import re
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from pydantic import ValidationError

from services.training.domain import Job
from services.training.launchers.kubernetes_job import render_job
from services.training.settings import Settings
from services.training.spec import from_json
from tailor.errors import FailedPrecondition

PLAIN = Settings()
FORMS = {
    "one gpu": PLAIN,
    "four gpus": Settings(kubernetes_gpus=4),
    "two nodes": Settings(kubernetes_nodes=2, kubernetes_gpus=4),
    "cpu": Settings(kubernetes_gpus=0),
    "kueue": Settings(kubernetes_queue="gpu-queue"),
    "two nodes of cpus with kueue": Settings(kubernetes_nodes=2, kubernetes_gpus=0, kubernetes_queue="gpu-queue"),
    "everything": Settings(
        kubernetes_queue="gpu-queue",
        kubernetes_gpus=2,
        kubernetes_memory="100Gi",
        kubernetes_scratch="48Gi",
        kubernetes_node_labels="tailor/pool=gpu, zone=b",
        kubernetes_priority_class="tailor-training",
        kubernetes_pull_secret="registry",
        kubernetes_deadline_seconds=3600,
        kubernetes_tolerations="cloud.google.com/gke-spot=true:NoSchedule, dedicated:NoExecute",
        kubernetes_runtime_class="nvidia",
        kubernetes_labels="team=research,app.kubernetes.io/name=other",
        kubernetes_annotations="cluster-autoscaler.kubernetes.io/safe-to-evict=false",
        kubernetes_environment="NCCL_SOCKET_IFNAME=eth0,HF_HUB_OFFLINE=0",
        parallelism="shard",
    ),
    "the cluster's user": Settings(kubernetes_user_id=0),
    "a cache of bases": Settings(kubernetes_base_cache_claim="base-cache", base_cache_gib=90),
    "a role": Settings(
        kubernetes_service_account="training-worker",
        kubernetes_worker_role="arn:aws:iam::1:role/worker",
        kubernetes_token_audience="objects",
        s3_sts_endpoint="https://sts.example",
        s3_bucket_prefix="acme-",
    ),
}
# The volume types that the Pod Security profile `restricted` allows.
RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def expanded(value: str) -> str:
    """A variable's value as Kubernetes expands it: `$(NAME)` is another variable, `$$` a dollar."""
    return re.sub(r"\$\$|\$\(\w+\)", lambda match: "$" if match[0] == "$$" else "another's value", value)


def test_dollars_of_a_recipe_reach_the_worker(job: Job) -> None:
    stage = replace(job.stage, recipe_json='{"pattern": "^a$(HOME)$$"}')
    changed = replace(job, run=replace(job.run, stages=(stage,)))
    (worker,) = pod_of(render_job(changed, PLAIN))["containers"]
    (value,) = [entry["value"] for entry in worker["env"] if entry["name"] == "TAILOR_RUN_JSON"]
    assert from_json(expanded(value)).recipe_json == stage.recipe_json


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(manifest)["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize("form", FORMS)
def test_every_form_validates_against_the_schemas_and_passes_pod_security_restricted(job: Job, form: str) -> None:
    for version in ("1.31", "1.37"):
        kubernetes_validate.validate(render_job(job, FORMS[form]), version, strict=True)

    pod, container = pod_of(render_job(job, FORMS[form])), container_of(render_job(job, FORMS[form]))
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all(set(volume) - {"name"} <= RESTRICTED_VOLUMES for volume in pod["volumes"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"].get("runAsUser") != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "privileged" not in container["securityContext"]
    assert all("hostPort" not in port for port in container.get("ports", []))
    assert pod["automountServiceAccountToken"] is False


def test_one_gpu_is_one_plain_worker_on_a_tainted_node(job: Job) -> None:
    manifest = render_job(job, PLAIN)
    container = container_of(manifest)
    assert container["command"] == ["python", "-m", "services.training.worker"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod_of(manifest)["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert {"mountPath": "/dev/shm", "name": "shared-memory"} in container["volumeMounts"]
    assert "completionMode" not in manifest["spec"]
    assert manifest["spec"]["suspend"] is False
    # It carries the run and no secret.
    variables = {entry["name"]: entry for entry in container["env"]}
    assert from_json(variables["TAILOR_RUN_JSON"]["value"]).run_id == job.run.run_id
    assert "value" not in variables["TAILOR_S3_SECRET_KEY"]
    assert "TAILOR_BASE_CACHE_DIR" not in variables
    manifest = render_job(job, FORMS["cpu"])
    assert "nvidia.com/gpu" not in container_of(manifest)["resources"]["limits"]
    assert "tolerations" not in pod_of(manifest)


def test_every_setting_reaches_the_job(job: Job) -> None:
    manifest = render_job(job, FORMS["everything"])
    pod, metadata = pod_of(manifest), manifest["spec"]["template"]["metadata"]
    assert pod["tolerations"][1:] == [
        {"key": "cloud.google.com/gke-spot", "effect": "NoSchedule", "operator": "Equal", "value": "true"},
        {"key": "dedicated", "effect": "NoExecute", "operator": "Exists"},
    ]
    assert pod["runtimeClassName"] == "nvidia"
    assert metadata["annotations"] == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    # Tailor's own labels and variables stay.
    assert metadata["labels"]["team"] == manifest["metadata"]["labels"]["team"] == "research"
    assert metadata["labels"]["app.kubernetes.io/name"] == "training-worker"
    variables = {entry["name"]: entry.get("value") for entry in container_of(manifest)["env"]}
    assert variables["NCCL_SOCKET_IFNAME"] == "eth0"
    assert (variables["HF_HUB_OFFLINE"], variables["TAILOR_PARALLELISM"]) == ("1", "shard")
    # Kueue gets a suspended Job with its queue.
    assert manifest["spec"]["suspend"] is True
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-queue"
    assert (pod["priorityClassName"], pod["imagePullSecrets"]) == ("tailor-training", [{"name": "registry"}])
    assert manifest["spec"]["activeDeadlineSeconds"] == 3600
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {part["key"]: part["values"] for part in term["matchExpressions"]} == {"tailor/pool": ["gpu"], "zone": ["b"]}
    assert container_of(manifest)["resources"]["requests"] == {
        "cpu": "4",
        "memory": "100Gi",
        "ephemeral-storage": "48Gi",
        "nvidia.com/gpu": "2",
    }
    assert {"name": "scratch", "emptyDir": {"sizeLimit": "48Gi"}} in pod["volumes"]
    context = pod_of(render_job(job, FORMS["the cluster's user"]))["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize(
    ("setting", "text", "message"),
    [
        *(
            ("tolerations", text, "KEY=VALUE:EFFECT")
            for text in ("spot", "spot=true", "spot=true:Never", "=true:NoSchedule")
        ),
        ("environment", "TAILOR_S3_ACCESS_KEY=other", "TAILOR_S3_ACCESS_KEY, which the service sets"),
        ("node_labels", "gpu", "KEY=VALUE"),
    ],
)
def test_a_misspelt_setting_is_refused_with_its_form(setting: str, text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**{f"kubernetes_{setting}": text})  # type: ignore[arg-type]


def test_worker_with_a_role_gets_a_token_for_the_store_in_place_of_keys(job: Job) -> None:
    manifest = render_job(job, FORMS["a role"])
    pod = pod_of(manifest)
    variables = {entry["name"]: entry.get("value") for entry in container_of(manifest)["env"]}
    assert pod["serviceAccountName"] == "training-worker"
    (token,) = [volume["projected"]["sources"] for volume in pod["volumes"] if volume["name"] == "token"]
    assert token == [{"serviceAccountToken": {"audience": "objects", "expirationSeconds": 3600, "path": "token"}}]
    assert variables["TAILOR_S3_ROLE"] == "arn:aws:iam::1:role/worker"
    assert variables["TAILOR_S3_TOKEN_FILE"] == "/run/tailor/token/token"
    assert variables["TAILOR_S3_STS_ENDPOINT"] == "https://sts.example"
    assert variables["TAILOR_S3_BUCKET_PREFIX"] == "acme-"
    assert not {"TAILOR_S3_ACCESS_KEY", "TAILOR_S3_SECRET_KEY"} & set(variables)


def test_worker_shares_a_volume_for_bases_with_the_others(job: Job) -> None:
    manifest = render_job(job, FORMS["a cache of bases"])
    container = container_of(manifest)
    assert {"name": "base-cache", "persistentVolumeClaim": {"claimName": "base-cache"}} in pod_of(manifest)["volumes"]
    assert {"name": "base-cache", "mountPath": "/base-cache"} in container["volumeMounts"]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert (variables["TAILOR_BASE_CACHE_DIR"], variables["TAILOR_BASE_CACHE_GIB"]) == ("/base-cache", "90")


def test_worker_calls_a_service_with_tls_by_the_files_of_its_secret(job: Job) -> None:
    def tls(settings: Settings) -> dict[str, str]:
        environment = container_of(render_job(job, settings))["env"]
        return {entry["name"]: entry["value"] for entry in environment if entry["name"].startswith("TAILOR_TLS_")}

    files: dict[str, Any] = {
        "tls_ca_file": "/tls/ca.pem",
        "tls_certificate_file": "/tls/tls.crt",
        "tls_key_file": "/tls/tls.key",
    }
    assert tls(Settings()) == {}
    assert tls(Settings(**files)) == {"TAILOR_TLS_CA_FILE": "/identity/ca.pem"}
    assert tls(Settings(**files, tls_client_ca_file="/tls/clients.pem")) == {
        "TAILOR_TLS_CA_FILE": "/identity/ca.pem",
        "TAILOR_TLS_CERTIFICATE_FILE": "/identity/tls.crt",
        "TAILOR_TLS_KEY_FILE": "/identity/tls.key",
    }


def test_several_gpus_of_one_node_have_one_process_each(job: Job) -> None:
    command = container_of(render_job(job, FORMS["four gpus"]))["command"]
    assert command[:3] == ["python", "-m", "services.training.launchers.torchrun"]
    assert {"--nproc-per-node=4", "--standalone"} <= set(command)
    assert command[-2:] == ["-m", "services.training.worker"]


def test_several_nodes_meet_at_the_first_pod(job: Job) -> None:
    manifest = render_job(job, FORMS["two nodes"])
    spec, pod = manifest["spec"], pod_of(manifest)
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert pod["subdomain"] == "training-workers"
    command = container_of(manifest)["command"]
    name = manifest["metadata"]["name"]
    assert f"--rdzv-endpoint={name}-0.training-workers:29500" in command
    assert {"--nnodes=2", "--nproc-per-node=4", "--node-rank=$(JOB_COMPLETION_INDEX)"} <= set(command)
    assert "--standalone" not in command
    # Kubernetes derives a pod's name and host name from the Job's name.
    assert len(f"{name}-0") <= 63
    (apart,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert apart["labelSelector"]["matchLabels"] == {"batch.kubernetes.io/job-name": name}


def test_failure_rules_distinguish_disrupted_saved_and_failed_workers(job: Job) -> None:
    spec = render_job(job, PLAIN)["spec"]
    disrupted, retriable, ended = spec["podFailurePolicy"]["rules"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert (retriable["onExitCodes"]["operator"], retriable["onExitCodes"]["values"]) == ("In", [75])
    assert (ended["onExitCodes"]["operator"], ended["onExitCodes"]["values"]) == ("NotIn", [0])
    # No second worker under one epoch: the service starts another one under the next epoch.
    assert {rule["action"] for rule in (disrupted, retriable, ended)} == {"FailJob"}
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")


def test_run_that_is_too_large_for_the_environment_is_rejected(job: Job) -> None:
    stage = replace(job.stage, recipe_json='{"terms": "' + "x" * 100_000 + '"}')
    large = Job(replace(job.run, stages=(stage,)), job.base_digest)
    with pytest.raises(FailedPrecondition) as refused:
        render_job(large, PLAIN)
    assert refused.value.reason == "RUN_TOO_LARGE"
