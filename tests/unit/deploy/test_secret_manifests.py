"""The Secrets of prod from one folder: what pods name is there, and External Secrets hold no values."""

from pathlib import Path
from typing import Any

import pytest

from deploy.make_secrets import make
from deploy.secret_manifests import manifests, values
from services.training.launchers.kubernetes_job import KEYS_IN_SECRET
from tests.unit.deploy.manifests import named, render, validate

# The administrators' own at stores outside.
OF_THE_STORES = {"init-topics", "init-buckets", "init-databases"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path, database="db.example:5432?sslmode=verify-full")
    return tmp_path


def wanted_by(pod: dict[str, Any]) -> dict[str, set[str]]:
    """The Secrets and ConfigMaps that a pod names, with the keys that it reads by name."""
    sources = [source for container in pod["containers"] for source in container.get("envFrom", [])]
    names = {source["secretRef"]["name"]: set[str]() for source in sources if "secretRef" in source}
    for volume in pod.get("volumes", []):
        name = volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
        names |= {name: set()} if name else {}
    return names


def test_every_secret_that_prod_names_is_made(folder: Path) -> None:
    objects = list(manifests(folder, "tailor", "tailor"))
    made = {document["metadata"]["name"]: document for document in objects}
    wanted: set[str] = {"tailor-training-worker"}
    documents = render()
    # Those that a Gateway and an Ingress name.
    for document in render("gateway", "gateway-operators", "ingress"):
        if document["kind"] == "BackendTLSPolicy":
            references = document["spec"]["validation"]["caCertificateRefs"]
            assert {("ConfigMap", each["name"]) for each in references} <= {
                (each["kind"], each["metadata"]["name"]) for each in objects
            }
            wanted |= {each["name"] for each in references}
        if document["kind"] == "Ingress":
            secret = document["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-ssl-secret"]
            wanted.add(secret.removeprefix("tailor/"))
    for kind in ("Deployment", "Job"):
        for workload in named(documents, kind).values():
            wanted |= set(wanted_by(workload["spec"]["template"]["spec"]))
    assert wanted - OF_THE_STORES == set(made)
    for document in objects:
        validate(document)
    # The keys that pods and workers read as files.
    assert set(made["tailor-registry-identity"]["stringData"]) == {"identity.pem"}
    assert set(made["tailor-training-worker"]["stringData"]) == {
        "identity.pem",
        "trust.json",
        "ca.pem",
        *KEYS_IN_SECRET.values(),
    }
    assert set(made["tailor-registry-tls"]["stringData"]) == {"tls.crt", "tls.key", "ca.crt"}
    assert set(made["init-stores"]["stringData"]) == {"stores.json"}
    assert set(made["tailor-trust"]["data"]) == {"trust.json"}


def test_the_certificates_of_doors_have_secrets_of_their_own(folder: Path) -> None:
    made = {document["metadata"]["name"] for document in manifests(folder, "tailor", "tailor")}
    documents = render("gateway", "ingress")
    doors = {
        reference["name"]
        for listener in named(documents, "Gateway")["tailor"]["spec"]["listeners"]
        for reference in listener["tls"]["certificateRefs"]
    }
    doors |= {
        entry["secretName"] for ingress in named(documents, "Ingress").values() for entry in ingress["spec"]["tls"]
    }
    assert len(doors) == 4 and not doors & made


def test_the_database_is_the_one_that_was_named(folder: Path) -> None:
    url = values(folder)["tailor-registry"]["TAILOR_DATABASE_URL"]
    assert url.startswith("postgresql+psycopg://registry:") and url.endswith(
        "@db.example:5432/registry?sslmode=verify-full"
    )
    assert values(folder)["tailor-console"].get("TAILOR_DATABASE_URL") is None


@pytest.mark.parametrize(
    "address", ["db.example", "db.example:5432/other", "user@db:5432", "db:5432?sslmode=a b", "db:5432\n"]
)
def test_an_address_that_is_no_database_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        make(tmp_path, database=address)


def test_external_secrets_have_the_same_names_and_no_values(folder: Path) -> None:
    entries = values(folder)
    documents = list(manifests(folder, "tailor", "tailor-workers", store="vault"))
    external = {
        document["metadata"]["name"]: document for document in documents if document["kind"] == "ExternalSecret"
    }
    assert set(external) == set(entries)
    for name, document in external.items():
        validate(document)
        assert document["spec"]["target"]["name"] == document["spec"]["dataFrom"][0]["extract"]["key"] == name
        # Users are called as their Secrets.
        secret = [value for value in entries[name].values() if value and value != name]
        assert not any(value in str(document) for value in secret)
    places = {name: document["metadata"]["namespace"] for name, document in external.items()}
    assert places.pop("tailor-training-worker") == "tailor-workers" and set(places.values()) == {"tailor"}


def test_without_secrets_it_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"deploy\.make_secrets"):
        values(tmp_path)
