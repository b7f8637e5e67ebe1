"""`tailor status` is the same whether the stack is found by its directory or by the addresses of `tailor env`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tailor.cli.connections import SERVICES
from tailor.cli.main import app
from tailor.local.layout import Layout
from tailor.local.ports import Ports
from tailor.local.state import ComponentState, StackSnapshot, save

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
