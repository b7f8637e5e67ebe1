"""Fetching the real servers: what is missing is named, and what is there is not fetched again."""

from pathlib import Path

import pytest

from tests.installed import Missing, check_installed
from tests.real.fetch import KAFKA, LIBRDKAFKA, MINIO, NEEDED, find, folder
from tests.real.servers import compose_environment, free_ports


def test_names_everything_that_must_be_installed(tmp_path: Path) -> None:
    with pytest.raises(Missing) as caught:
        check_installed(NEEDED, "real stores", path=str(tmp_path))
    for name in ("openjdk-17", "maven", "Go 1.24"):
        assert name in str(caught.value)


def test_says_nothing_if_all_is_installed(tmp_path: Path) -> None:
    for name in NEEDED:
        (tmp_path / name).touch(mode=0o755)
    check_installed(NEEDED, "real stores", path=str(tmp_path))


def test_servers_are_found_only_if_all_are_whole(tmp_path: Path) -> None:
    (tmp_path / f"kafka-{KAFKA}").mkdir()
    assert find(tmp_path) is None
    (tmp_path / f"minio-{MINIO}").mkdir()
    (tmp_path / f"minio-{MINIO}" / "minio").touch()
    assert find(tmp_path) is None
    (tmp_path / f"librdkafka-{LIBRDKAFKA}").mkdir()
    assert find(tmp_path) is not None


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAILOR_REAL_FOLDER", str(tmp_path))
    assert folder() == tmp_path


def test_kafka_starts_from_the_settings_of_compose() -> None:
    settings = compose_environment()
    assert settings["KAFKA_ALLOW_EVERYONE_IF_NO_ACL_FOUND"] == "false"
    assert "ANONYMOUS" not in settings["KAFKA_SUPER_USERS"]
    assert "PLAINTEXT:PLAINTEXT" not in settings["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]


def test_ports_are_free_and_different() -> None:
    ports = free_ports(6)
    assert len(set(ports)) == 6
    assert all(10_000 <= port < 20_000 for port in ports)
