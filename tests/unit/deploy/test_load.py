"""Replicas stand apart, stop without cutting answers, let nodes be drained, and follow the load."""

from typing import Any

import jsonschema
import pytest
import yaml

from services.inference.settings import Settings as InferenceSettings
from tailor.events.topics import load_topics
from tailor.local.layout import SERVICES
from tailor.settings import ServiceSettings
from tests.unit.deploy.manifests import K8S, container_of, environment_of, named, pod_of, render, validate

# Seconds that a process takes to end its threads and connections after its last answer.
END_SECONDS = 30


@pytest.mark.parametrize("service", SERVICES)
def test_replicas_prefer_other_nodes_and_zones(service: str) -> None:
    pod, own = pod_of(render(), service), {"matchLabels": {"app.kubernetes.io/name": service}}
    (term,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"] == {"topologyKey": "kubernetes.io/hostname", "labelSelector": own}
    zone = pod["topologySpreadConstraints"][0]
    assert (zone["topologyKey"], zone["whenUnsatisfiable"]) == ("topology.kubernetes.io/zone", "ScheduleAnyway")
    assert zone["labelSelector"] == own


def test_replicas_of_inference_never_share_a_node_while_another_takes_pods() -> None:
    _, host = pod_of(render(), "inference")["topologySpreadConstraints"]
    assert (host["topologyKey"], host["maxSkew"], host["whenUnsatisfiable"]) == (
        "kubernetes.io/hostname",
        1,
        "DoNotSchedule",
    )
    # A drained node and one without the pool's label do not count; nor do the pods of the revision that is being replaced.
    assert (host["nodeTaintsPolicy"], host["nodeAffinityPolicy"]) == ("Honor", "Honor")
    assert host["matchLabelKeys"] == ["pod-template-hash"]
    assert host["labelSelector"] == {"matchLabels": {"app.kubernetes.io/name": "inference"}}


@pytest.mark.parametrize("service", SERVICES)
def test_a_drain_may_always_evict_one_replica(service: str) -> None:
    budget = named(render(), "PodDisruptionBudget")[service]["spec"]
    assert "minAvailable" not in budget
    assert budget["maxUnavailable"] >= 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"] == {"matchLabels": {"app.kubernetes.io/name": service}}


@pytest.mark.parametrize("service", SERVICES)
def test_pod_is_given_the_time_that_its_process_takes_to_stop(service: str) -> None:
    pod = pod_of(render(), service)
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    default = ServiceSettings.model_fields["stop_grace_seconds"].default
    grace = float(environment_of(render(), service).get("TAILOR_STOP_GRACE_SECONDS", default))
    assert pause >= 5
    assert pod["terminationGracePeriodSeconds"] >= pause + grace + END_SECONDS


def test_inference_finishes_its_longest_answer_before_it_stops() -> None:
    environment = environment_of(render(), "inference")
    default = InferenceSettings.model_fields["max_model_len"].default
    longest = int(environment.get("TAILOR_MAX_MODEL_LEN", default))
    assert float(environment["TAILOR_STOP_GRACE_SECONDS"]) >= longest / 10


def test_callers_find_new_replicas_and_services_stay_with_one() -> None:
    services = named(render(), "Service")
    replicas = services["inference-replicas"]["spec"]
    assert replicas["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in replicas
    assert replicas["selector"] == services["inference"]["spec"]["selector"]
    assert {port["targetPort"] for port in replicas["ports"]} == {"rpc", "http"}
    sticky = services["inference-sticky"]["spec"]
    assert (sticky["sessionAffinity"], sticky["selector"]) == ("ClientIP", replicas["selector"])
    settings = next(each for name, each in named(render(), "ConfigMap").items() if "settings" in name)["data"]
    assert settings["TAILOR_INFERENCE_ADDRESS"] == "inference-sticky:50051"
    assert "sessionAffinity" not in services["inference"]["spec"]
    ages = {environment_of(render(), name)["TAILOR_RPC_CONNECTION_AGE_SECONDS"] for name in SERVICES}
    assert ages == {"300"}


@pytest.mark.parametrize("service", SERVICES)
def test_liveness_asks_what_fails_when_a_part_hangs(service: str) -> None:
    probe = container_of(render(), service)["livenessProbe"]
    assert probe["httpGet"] == {"path": "/livez", "port": "status"}
    assert probe["failureThreshold"] * probe["periodSeconds"] <= 60


SCALED = {
    "autoscaling-cpu": {"ingestion", "anonymization", "registry"},
    "autoscaling-queue": {"inference"},
    "autoscaling-lag": {"ingestion", "anonymization", "registry"},
}


def scalers(component: str) -> dict[str, Any]:
    kind = "ScaledObject" if component == "autoscaling-lag" else "HorizontalPodAutoscaler"
    return dict(named(render(component), kind))


@pytest.mark.parametrize("component", SCALED)
def test_scaled_deployments_have_no_number_of_replicas_and_the_others_keep_theirs(component: str) -> None:
    assert set(scalers(component)) == SCALED[component]
    deployments = named(render(component), "Deployment")
    assert {name for name, each in deployments.items() if "replicas" not in each["spec"]} == SCALED[component]
    for name, scaler in scalers(component).items():
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", name)


def test_queue_and_lag_can_be_scaled_together() -> None:
    documents = render("autoscaling-queue", "autoscaling-lag")
    assert set(named(documents, "ScaledObject")) == SCALED["autoscaling-lag"]
    assert set(named(documents, "HorizontalPodAutoscaler")) == SCALED["autoscaling-queue"]


def test_no_service_is_scaled_beyond_the_partitions_of_its_topics() -> None:
    for name, scaled in scalers("autoscaling-lag").items():
        for trigger in scaled["spec"]["triggers"]:
            topic = load_topics()[trigger["metadata"]["topic"]]
            assert name in topic.consumers
            assert trigger["metadata"]["consumerGroup"] == name
            assert scaled["spec"]["maxReplicaCount"] <= topic.partitions


def test_inference_is_scaled_by_metrics_that_it_has() -> None:
    from tailor import telemetry

    known = {gauge._name for gauge in (telemetry.ANSWERS_WAITING, telemetry.ANSWERS_RUNNING)}
    metrics = scalers("autoscaling-queue")["inference"]["spec"]["metrics"]
    assert {metric["pods"]["metric"]["name"] for metric in metrics} == known
    running = next(each for each in metrics if each["pods"]["metric"]["name"] == "tailor_answers_running")
    for size in ("size-135m", "size-8b"):
        places = int(environment_of(render(size), "inference")["TAILOR_MAX_CONCURRENT"])
        assert int(running["pods"]["target"]["averageValue"]) < places


def test_misspelt_field_of_a_custom_resource_fails() -> None:
    path = K8S / "components" / "autoscaling-lag" / "scaled-objects.yaml"
    scaled = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    scaled["spec"]["maxReplicas"] = scaled["spec"].pop("maxReplicaCount")
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        validate(scaled)
