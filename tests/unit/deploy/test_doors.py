"""How callers get in by Gateway API or Ingress, and what a platform asks of pods: users, runtime classes, taints."""

from typing import Any

import jsonschema
import pytest
import yaml

from services.training.settings import Settings as TrainingSettings
from services.training.settings import decode_tolerations
from tailor.local.layout import SERVICES
from tests.unit.deploy.manifests import K8S, container_of, environment_of, named, pod_of, render, validate

# Several services have one; a metric service and a detector are the company's own.
NOT_ROUTED = {"EventService", "MetricService", "DetectorService"}


def routed(kind: str, *components: str) -> dict[str, str]:
    """The gRPC services that a kind of object routes, with their backends."""
    backends = {}
    for document in named(render(*components), kind).values():
        for rule in document["spec"]["rules"]:
            (backend,) = rule["backendRefs"]
            for match in rule["matches"]:
                backends[match["method"]["service"]] = backend["name"]
    return backends


def services_of_the_contract() -> dict[str, str]:
    """Every gRPC service by name, with the service that serves it."""
    names: dict[str, str] = {}
    for path in sorted((K8S.parent / "proto" / "tailor" / "api").rglob("*.proto")):
        package = ".".join(["tailor", "api", path.parts[-3], path.parts[-2]])
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("service "):
                names[f"{package}.{line.split()[1]}"] = path.parts[-3]
    return names


def test_callers_and_publishers_come_in_through_the_gateway_and_nobody_else() -> None:
    assert routed("GRPCRoute", "gateway") == {
        "tailor.api.inference.v1.InferenceService": "inference",
        "tailor.api.ingestion.v1.IngestionService": "ingestion",
    }


def test_with_operators_every_service_of_the_contract_has_its_backend() -> None:
    found = routed("GRPCRoute", "gateway", "gateway-operators")
    expected = services_of_the_contract()
    assert found == {name: service for name, service in expected.items() if name.rpartition(".")[2] not in NOT_ROUTED}


def test_every_route_names_a_listener_with_tls_and_its_host() -> None:
    documents = render("gateway", "gateway-operators")
    listeners = {each["name"]: each for each in named(documents, "Gateway")["tailor"]["spec"]["listeners"]}
    assert {each["tls"]["mode"] for each in listeners.values()} == {"Terminate"}
    assert {each["protocol"] for each in listeners.values()} == {"HTTPS"}
    for kind in ("GRPCRoute", "HTTPRoute"):
        for route in named(documents, kind).values():
            (parent,) = route["spec"]["parentRefs"]
            assert route["spec"]["hostnames"] == [listeners[parent["sectionName"]]["hostname"]]


def test_grpc_and_http_share_no_host_name() -> None:
    # An implementation must refuse one of two such routes.
    documents = render("gateway", "gateway-operators")
    grpc, http = (
        {host for route in named(documents, kind).values() for host in route["spec"]["hostnames"]}
        for kind in ("GRPCRoute", "HTTPRoute")
    )
    assert not grpc & http


def test_every_backend_is_a_port_of_a_service() -> None:
    documents = render("gateway", "gateway-operators")
    ports = {
        name: {port["port"] for port in each["spec"]["ports"]} for name, each in named(documents, "Service").items()
    }
    for kind in ("GRPCRoute", "HTTPRoute"):
        for route in named(documents, kind).values():
            for rule in route["spec"]["rules"]:
                for backend in rule["backendRefs"]:
                    assert backend["port"] in ports[backend["name"]]


def test_doors_wait_as_long_as_the_longest_answer() -> None:
    documents = render("gateway", "ingress", "size-8b")
    longest = float(environment_of(documents, "inference")["TAILOR_STOP_GRACE_SECONDS"])
    (rule,) = named(documents, "HTTPRoute")["openai"]["spec"]["rules"]
    assert float(rule["timeouts"]["request"].removesuffix("s")) >= longest
    for name in ("tailor-callers", "tailor-openai"):
        annotations = named(documents, "Ingress")[name]["metadata"]["annotations"]
        assert float(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) >= longest


def test_ingress_has_tls_for_every_host_and_speaks_the_protocol_of_its_backend() -> None:
    documents = render("ingress")
    ports = {
        name: {port["name"] for port in each["spec"]["ports"]} for name, each in named(documents, "Service").items()
    }
    for ingress in named(documents, "Ingress").values():
        hosts = [rule["host"] for rule in ingress["spec"]["rules"]]
        assert [host for entry in ingress["spec"]["tls"] for host in entry["hosts"]] == hosts
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                assert service["port"]["name"] in ports[service["name"]]
                protocol = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"]
                assert protocol == ("GRPCS" if service["port"]["name"] == "rpc" else "HTTPS")


def test_namespace_of_a_door_reaches_the_ports_that_it_routes_to() -> None:
    policies = named(render("gateway"), "NetworkPolicy")
    for name in ("inference", "console"):
        callers = policies[name]["spec"]["ingress"][0]
        assert {"namespaceSelector": {"matchExpressions": [LABEL]}} in callers["from"]
        assert {port["port"] for port in callers["ports"]} == {"rpc", "http"}


LABEL = {"key": "tailor/clients", "operator": "In", "values": ["true"]}


@pytest.mark.parametrize("service", SERVICES)
def test_no_pod_names_its_user_where_the_cluster_gives_one(service: str) -> None:
    context = pod_of(render("arbitrary-uid"), service)["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy"} & set(context)
    assert context["runAsNonRoot"] is True
    assert "runAsUser" not in container_of(render("arbitrary-uid"), service)["securityContext"]


def settings_of(component: str) -> dict[str, Any]:
    """The settings that a component gives training beyond the prod overlay."""
    before, after = environment_of(render(), "training"), environment_of(render(component), "training")
    return {name: value for name, value in after.items() if before.get(name) != value}


def test_workers_follow_the_components_for_users_runtime_classes_and_spot_nodes() -> None:
    assert settings_of("arbitrary-uid") == {"TAILOR_KUBERNETES_USER_ID": "0"}
    assert settings_of("runtime-class") == {"TAILOR_KUBERNETES_RUNTIME_CLASS": "nvidia"}
    assert pod_of(render("runtime-class"), "inference")["runtimeClassName"] == "nvidia"
    ((name, taints),) = settings_of("spot-workers").items()
    assert name == "TAILOR_KUBERNETES_TOLERATIONS"
    assert len(decode_tolerations(taints)) == 2
    assert TrainingSettings(kubernetes_tolerations=taints).kubernetes_tolerations == taints


def test_all_components_for_a_cluster_fit_together() -> None:
    render(
        "size-8b",
        "gateway",
        "gateway-operators",
        "autoscaling-queue",
        "autoscaling-lag",
        "arbitrary-uid",
        "runtime-class",
    )


def test_route_with_a_misspelt_field_fails() -> None:
    route = next(yaml.safe_load_all((K8S / "components" / "gateway" / "routes.yaml").read_text(encoding="utf-8")))
    route["spec"]["rules"][0]["backendRef"] = route["spec"]["rules"][0].pop("backendRefs")
    with pytest.raises(jsonschema.ValidationError, match="backendRef"):
        validate(route)
