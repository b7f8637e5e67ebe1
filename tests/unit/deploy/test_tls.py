"""TLS between the services of a cluster."""

import pytest

from tailor.local.layout import SERVICES
from tests.unit.deploy.manifests import container_of, environment_of, pod_of, render


@pytest.mark.parametrize("service", SERVICES)
def test_with_the_component_every_service_serves_and_verifies_tls_with_a_certificate_of_its_own(service: str) -> None:
    documents = render("tls")
    environment = environment_of(documents, service)
    folder = next(m["mountPath"] for m in container_of(documents, service)["volumeMounts"] if m["name"] == "tls")
    assert {name: environment[f"TAILOR_TLS_{name}_FILE"] for name in ("CERTIFICATE", "KEY", "CA")} == {
        "CERTIFICATE": f"{folder}/tls.crt",
        "KEY": f"{folder}/tls.key",
        "CA": f"{folder}/ca.crt",
    }
    volume = next(volume for volume in pod_of(documents, service)["volumes"] if volume["name"] == "tls")
    assert volume["secret"]["secretName"] == f"tailor-{service}-tls"


def test_without_it_nothing_claims_tls() -> None:
    for service in SERVICES:
        assert not [name for name in environment_of(render(), service) if name.startswith("TAILOR_TLS_")]
