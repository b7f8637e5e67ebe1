"""The ports of a stack."""

import socket
from pathlib import Path

import pytest

from tailor.errors import FailedPrecondition
from tailor.local.ports import BASE_VARIABLE, BLOCK, PORT_NAMES, Ports, reserve


def test_all_ports_of_a_stack_differ() -> None:
    ports = Ports(20000)
    assert len({ports[name] for name in PORT_NAMES}) == len(PORT_NAMES) <= BLOCK


def test_two_stacks_never_share_a_block(tmp_path: Path) -> None:
    first, second = reserve(tmp_path), reserve(tmp_path)
    try:
        assert first.ports.base != second.ports.base
    finally:
        first.close()
        second.close()


def test_keeps_its_ports_if_they_are_free(tmp_path: Path) -> None:
    first = reserve(tmp_path)
    first.close()
    again = reserve(tmp_path / "elsewhere", preferred=first.ports.base)
    again.close()
    assert again.ports == first.ports


def test_chooses_other_ports_if_one_is_taken(tmp_path: Path) -> None:
    first = reserve(tmp_path)
    first.close()
    with socket.create_server(("127.0.0.1", first.ports["database"])):
        second = reserve(tmp_path, preferred=first.ports.base)
        second.close()
    assert second.ports != first.ports


def test_takes_the_configured_block_or_reports_that_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = reserve(tmp_path)
    free.close()
    monkeypatch.setenv(BASE_VARIABLE, str(free.ports.base))
    configured = reserve(tmp_path)
    try:
        assert configured.ports == free.ports
        with pytest.raises(FailedPrecondition, match="PORTS_TAKEN"):
            reserve(tmp_path)
    finally:
        configured.close()
