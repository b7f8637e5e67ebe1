"""The options of `tailor up` for your own stores."""

import pytest

from tailor.cli.own_stores import database_table, kafka_table, s3_table
from tailor.errors import InvalidArgument


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
