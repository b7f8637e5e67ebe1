"""The secrets of a deployment: separate for each service, kept by a second run, and readable by the services' settings."""

import hashlib
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from deploy.init.credentials import load_credentials
from deploy.make_secrets import make
from tailor.events.access import OPERATOR, PUBLISHERS
from tailor.keys import decode_keys
from tailor.local.layout import SERVICES, WITH_DATABASE, Layout
from tailor.local.secrets import drop_previous_vault_keys, renew_vault_key
from tailor.rpc.identity import Identity, Trust
from tailor.storage.buckets import ACCESS


def read_env(path: Path) -> dict[str, str]:
    """Read a file of NAME=value lines."""
    return dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())


def test_a_second_run_keeps_every_secret(tmp_path: Path) -> None:
    folder = make(tmp_path)
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    make(tmp_path)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first


def test_services_trust_each_others_identities(tmp_path: Path) -> None:
    folder = make(tmp_path)
    trust = Trust.load(folder / "trust.json")
    for name in (*SERVICES, "training-worker"):
        token = Identity.load(name, folder / f"{name}.pem").token("registry")
        assert trust.verify(token, "registry") == name


def test_a_services_file_contains_only_credentials_that_it_uses(tmp_path: Path) -> None:
    folder = make(tmp_path)
    for service in SERVICES:
        settings = read_env(folder / f"{service}.env")
        assert ("TAILOR_S3_SECRET_KEY" in settings) == bool(ACCESS[service])
        assert ("TAILOR_DATABASE_URL" in settings) == (service in WITH_DATABASE)
        assert ("TAILOR_QUARANTINE_KEY" in settings) == (service in ("ingestion", "anonymization"))
        assert ("TAILOR_VAULT_KEY" in settings) == (service == "anonymization")


def test_a_new_vault_key_precedes_the_old_ones_until_they_are_dropped(tmp_path: Path) -> None:
    first = read_env(make(tmp_path) / "anonymization.env")
    assert first["TAILOR_VAULT_PREVIOUS_KEYS"] == ""
    original = first["TAILOR_VAULT_KEY"]
    renew_vault_key(Layout(tmp_path))
    renew_vault_key(Layout(tmp_path))
    folder = make(tmp_path)
    renewed = read_env(folder / "anonymization.env")
    middle, oldest = renewed["TAILOR_VAULT_PREVIOUS_KEYS"].split(",")
    assert oldest == original and len({original, middle, renewed["TAILOR_VAULT_KEY"]}) == 3
    assert len(decode_keys(SecretStr(renewed["TAILOR_VAULT_PREVIOUS_KEYS"]))) == 2
    others = [path for path in folder.glob("*.env") if path.name != "anonymization.env"]
    assert others and not any(middle in path.read_text(encoding="utf-8") for path in others)
    drop_previous_vault_keys(Layout(tmp_path))
    dropped = read_env(make(tmp_path) / "anonymization.env")
    assert dropped["TAILOR_VAULT_PREVIOUS_KEYS"] == ""
    assert dropped["TAILOR_VAULT_KEY"] == renewed["TAILOR_VAULT_KEY"]


def test_stores_get_the_credentials_that_services_use(tmp_path: Path) -> None:
    folder = make(tmp_path)
    stored = load_credentials(folder / "stores.json")
    for service, credentials in stored.items():
        if service in (OPERATOR, *PUBLISHERS):
            continue
        holder, prefix = ("training", "WORKER_") if service == "training-worker" else (service, "")
        settings = read_env(folder / f"{holder}.env")
        if ACCESS[service]:
            assert settings[f"TAILOR_{prefix}S3_SECRET_KEY"] == credentials.s3_secret_key
        if credentials.database_password:
            assert f":{credentials.database_password}@" in settings["TAILOR_DATABASE_URL"]
        if credentials.kafka_password:
            assert settings["TAILOR_KAFKA_SASL_PASSWORD"] == credentials.kafka_password
    assert not stored["console"].kafka_password


def test_publishers_and_operators_get_users_of_kafka_and_nothing_else(tmp_path: Path) -> None:
    folder = make(tmp_path, ["erp"])
    stored = load_credentials(folder / "stores.json")
    for user in (*PUBLISHERS, OPERATOR, "erp"):
        settings = read_env(folder / f"kafka-{user}.env")
        assert settings["TAILOR_KAFKA_SASL_USERNAME"] == f"tailor-{user}"
        assert settings["TAILOR_KAFKA_SASL_PASSWORD"] == stored[user].kafka_password
        assert not (stored[user].s3_secret_key or stored[user].database_password)
    with pytest.raises(ValueError, match="cannot be a publisher"):
        make(tmp_path, ["registry"])
    with pytest.raises(ValueError, match="cannot be a publisher"):
        make(tmp_path, ["test-publisher"])


def test_the_brokers_own_passwords_are_in_its_file_only(tmp_path: Path) -> None:
    folder = make(tmp_path)
    admin = read_env(folder / "init-topics.env")["TAILOR_KAFKA_SASL_PASSWORD"]
    holders = {path.name for path in folder.glob("*.env") if admin in path.read_text(encoding="utf-8")}
    assert holders == {"kafka.env", "init-topics.env"}


def test_the_registry_gets_only_a_digest_of_the_first_operators_key(tmp_path: Path) -> None:
    folder = make(tmp_path)
    key = (folder / "operator.key").read_text(encoding="utf-8").strip()
    expected = hashlib.sha256(key.encode()).hexdigest()
    assert read_env(folder / "registry.env")["TAILOR_BOOTSTRAP_OPERATOR_KEY_SHA256"] == expected
    assert key not in (folder / "registry.env").read_text(encoding="utf-8")


def test_only_the_owner_can_enter_the_folder(tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "ingestion.env").stat().st_mode) == 0o600
