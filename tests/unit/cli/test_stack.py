"""The embedded stack, its own stores, and whether stored objects are whole."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tailor.api.registry.v1 import objects_pb2
from tailor.cli.connections import SERVICES
from tailor.cli.main import app
from tailor.cli.stack import database_table, kafka_table, s3_table
from tailor.errors import InvalidArgument
from tailor.local.layout import Layout
from tailor.local.ports import Ports
from tailor.local.state import ComponentState, StackSnapshot, save
from tests.unit.cli.conftest import Services, Tailor

PORTS = Ports(40000)
END = "2026-12-01 10:00:00 UTC: killed by the kernel because memory ran out"


def test_status_is_the_same_with_the_addresses_of_the_stack(tmp_path: Path) -> None:
    save_stack(tmp_path)
    named = {f"TAILOR_{service.upper()}_ADDRESS": PORTS.address(f"{service}-rpc") for service in SERVICES}

    plain, shown = status(tmp_path, {}), status(tmp_path, named)

    assert "broker" in plain and "3 (2026-12-01" in plain and "memory" in plain
    assert shown == plain


@pytest.mark.parametrize("service", SERVICES)
def test_status_checks_the_services_if_an_address_is_not_the_stacks(service: str, tmp_path: Path) -> None:
    save_stack(tmp_path)

    shown = status(tmp_path, {f"TAILOR_{service.upper()}_ADDRESS": "127.0.0.1:1", "TAILOR_API_KEY": "tlr_test"})

    assert "broker" not in shown
    assert service in shown and "unreachable" in shown


def save_stack(state_dir: Path) -> None:
    """A stopped stack, whose broker was restarted."""
    broker = ComponentState("broker", "stopped", "", {"kafka": "127.0.0.1:40000"}, restarts=3, last_end=END)
    training = ComponentState("training", "stopped", "", {"rpc": PORTS.address("training-rpc")})
    file = Layout(state_dir.resolve()).stack_file
    file.parent.mkdir(parents=True, exist_ok=True)
    save(file, StackSnapshot(None, PORTS.base, {"broker": broker, "training": training}))


def status(state_dir: Path, environment: dict[str, str]) -> str:
    return CliRunner().invoke(app, ["--state-dir", str(state_dir), "status"], env=environment).output


def kafka(address: str, admin: str = "", protocol: str = "", replicas: int = 3) -> dict[str, object]:
    return kafka_table(address, admin, "secret", protocol=protocol, replicas=replicas, ca_file=None)


def test_without_options_every_store_is_embedded() -> None:
    assert kafka("") == {}
    assert s3_table("", "", "", secure=False) == {}
    assert database_table("", "postgres", "") == {}


def test_an_administrator_means_users_over_tls_unless_said_otherwise() -> None:
    assert kafka("k:9093", "admin")["security_protocol"] == "SASL_SSL"
    assert kafka("k:9093", "admin", "SASL_PLAINTEXT")["security_protocol"] == "SASL_PLAINTEXT"
    assert kafka("k:9092")["security_protocol"] == "PLAINTEXT"


def test_all_copies_but_one_must_confirm() -> None:
    assert kafka("k:9092")["min_insync_replicas"] == 2
    assert kafka("k:9092", replicas=1)["min_insync_replicas"] == 1


def test_an_administrators_password_in_the_environment_is_not_kept_without_a_name() -> None:
    assert kafka("k:9092")["admin_password"] == ""
    assert s3_table("o:9000", "", "secret", secure=True)["admin_secret_key"] == ""


def test_an_administrator_without_an_address_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="--kafka HOST:PORT"):
        kafka("", "admin")
    with pytest.raises(InvalidArgument, match="--s3 HOST:PORT"):
        s3_table("", "minioadmin", "secret", secure=False)


URI = f"s3://corpus/documents/{'ab' * 32}"


def test_names_every_damaged_object_and_its_documents_over_all_pages(tailor: Tailor, services: Services) -> None:
    damaged = objects_pb2.DamagedObject(uri=URI, document_ids=["doc_1", "doc_2"])
    services.objects.pages = {
        "": objects_pb2.VerifyObjectsResponse(objects=3, bytes=2_000_000, unnamed=1, next_page_token="models/x"),
        "models/x": objects_pb2.VerifyObjectsResponse(objects=2, bytes=1_000_000, damaged=[damaged]),
    }
    outcome = tailor("verify")
    assert outcome.code == 1
    assert URI in outcome.out.replace("\n", "") and "doc_1" in outcome.out and "doc_2" in outcome.out
    assert "5 objects of 3 MB read, 1 damaged." in outcome.err and "1 of them are not named" in outcome.err
    assert tailor("--output=json", "verify").document["damaged"] == [{"uri": URI, "document_ids": ["doc_1", "doc_2"]}]


def test_whole_objects_are_counted(tailor: Tailor, services: Services) -> None:
    services.objects.pages[""].objects = 7
    outcome = tailor("verify")
    assert outcome.code == 0 and "7 objects of 0 MB read, 0 damaged." in outcome.err
