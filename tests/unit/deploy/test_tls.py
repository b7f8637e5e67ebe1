"""TLS between the services of a cluster: prod has it, with certificates that `make_secrets` wrote; plain text is the option."""

import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from deploy.certificates import dns_names
from deploy.make_secrets import make
from tailor.local.layout import SERVICES
from tests.unit.deploy.manifests import Document, container_of, environment_of, named, pod_of, render

DOORS = ("gateway", "gateway-operators", "ingress")
PROTOCOL = "nginx.ingress.kubernetes.io/backend-protocol"


def protocols(documents: tuple[Document, ...]) -> dict[str, dict[str, str]]:
    """The protocol of each port of the services, by Service and port."""
    found: dict[str, dict[str, str]] = {}
    for name, document in named(documents, "Service").items():
        ports = {port["name"]: port.get("appProtocol", "") for port in document["spec"]["ports"]}
        if "rpc" in ports:
            found[name] = ports
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_in_prod_every_service_serves_and_verifies_tls_with_a_certificate_of_its_own(service: str) -> None:
    documents = render()
    environment = environment_of(documents, service)
    folder = next(m["mountPath"] for m in container_of(documents, service)["volumeMounts"] if m["name"] == "tls")
    assert {name: environment[f"TAILOR_TLS_{name}_FILE"] for name in ("CERTIFICATE", "KEY", "CA")} == {
        "CERTIFICATE": f"{folder}/tls.crt",
        "KEY": f"{folder}/tls.key",
        "CA": f"{folder}/ca.crt",
    }
    volume = next(volume for volume in pod_of(documents, service)["volumes"] if volume["name"] == "tls")
    assert volume["secret"]["secretName"] == f"tailor-{service}-tls"


def test_doors_speak_tls_to_every_service_that_they_route_to_and_verify_its_name() -> None:
    documents = render(*DOORS)
    policies = named(documents, "BackendTLSPolicy")
    routed = {
        backend["name"]
        for kind in ("GRPCRoute", "HTTPRoute")
        for route in named(documents, kind).values()
        for rule in route["spec"]["rules"]
        for backend in rule["backendRefs"]
    }
    assert set(policies) == routed
    for name, policy in policies.items():
        assert [target["name"] for target in policy["spec"]["targetRefs"]] == [name]
        assert policy["spec"]["validation"]["hostname"] in dns_names(name, "tailor")
    for ingress in named(documents, "Ingress").values():
        annotations = ingress["metadata"]["annotations"]
        assert annotations["nginx.ingress.kubernetes.io/proxy-ssl-verify"] == "on"
        served = {path["backend"]["service"]["name"] for path in ingress["spec"]["rules"][0]["http"]["paths"]}
        assert {annotations["nginx.ingress.kubernetes.io/proxy-ssl-name"]} == served
    for ports in protocols(documents).values():
        assert {protocol for name, protocol in ports.items() if name != "status"} == {"https"}


def test_plain_text_is_an_option_that_leaves_nothing_of_tls() -> None:
    documents = render(*DOORS, "stable-members", "plain-text")
    for kind in ("Deployment", "StatefulSet"):
        for workload in named(documents, kind).values():
            pod = workload["spec"]["template"]["spec"]
            assert "tls" not in {volume["name"] for volume in pod["volumes"]}
            for container in pod["containers"]:
                assert "tls" not in {mount["name"] for mount in container["volumeMounts"]}
                assert not [entry for entry in container["env"] if entry["name"].startswith("TAILOR_TLS_")]
    assert not named(documents, "BackendTLSPolicy")
    assert {ports["rpc"] for ports in protocols(documents).values()} == {"kubernetes.io/h2c"}
    assert {ports.get("http", "") for ports in protocols(documents).values()} == {""}
    spoken = {name: each["metadata"]["annotations"][PROTOCOL] for name, each in named(documents, "Ingress").items()}
    assert spoken == {
        "tailor-callers": "GRPC",
        "tailor-publishers": "GRPC",
        "tailor-openai": "HTTP",
        "tailor-console": "HTTP",
    }


def handshake(folder: Path, service: str, host: str) -> dict[str, Any]:
    """The certificate of a service, as a client that trusts the authority gets it under a name. Raises OSError if it refuses it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / f"{service}.pem", folder / f"{service}.key")
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=host) as connection:
            return dict(connection.getpeercert() or {})
    finally:
        ours.close()
        thread.join()


def test_a_services_certificate_has_the_names_by_which_it_is_called_and_no_other(tmp_path: Path) -> None:
    folder = make(tmp_path, namespace="drafts") / "tls"
    for host in ("inference", "inference-sticky", "inference-replicas.drafts", "training.drafts.svc", "127.0.0.1"):
        service = "training" if host.startswith("training") else "inference"
        assert handshake(folder, service, host)["issuer"] == ((("commonName", "tailor-ca"),),)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(folder, "training", "inference")


def test_certificates_are_made_again_for_another_namespace_and_for_a_new_authority(tmp_path: Path) -> None:
    folder = make(tmp_path) / "tls"
    first = (folder / "registry.pem").read_bytes()
    make(tmp_path, namespace="drafts")
    assert handshake(folder, "registry", "registry.drafts")
    second = (folder / "registry.pem").read_bytes()
    for name in ("ca.pem", "ca.key"):
        (folder / name).unlink()
    make(tmp_path, namespace="drafts")
    assert handshake(folder, "registry", "registry.drafts")
    assert len({first, second, (folder / "registry.pem").read_bytes()}) == 3


@pytest.mark.parametrize("namespace", ["Drafts", "a b", "", "-x", "x" * 64])
def test_a_namespace_that_is_no_name_is_refused(tmp_path: Path, namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        make(tmp_path, namespace=namespace)
