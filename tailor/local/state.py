"""What a stack is at, as `stack.json` says."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tailor.local.ports import Ports
from tailor.local.processes import ProcessRef

Status = Literal["waiting", "starting", "ready", "restarting", "failed", "stopped"]


@dataclass(frozen=True)
class ComponentState:
    """One component. `failed`: it ended several times without ever being ready; it is still tried again, every 10 s."""

    name: str
    state: Status
    detail: str
    addresses: Mapping[str, str]
    restarts: int = 0
    process: ProcessRef | None = None
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """A stack at one moment; without a supervisor it does not run."""

    supervisor: ProcessRef | None
    port_base: int
    components: Mapping[str, ComponentState]

    @property
    def ports(self) -> Ports:
        """The stack's ports."""
        return Ports(self.port_base)

    @property
    def running(self) -> bool:
        """True if its supervisor is alive; a file that a killed one left behind says otherwise."""
        return self.supervisor is not None and self.supervisor.is_alive()

    @property
    def ready(self) -> bool:
        """True if every component is."""
        return bool(self.components) and all(component.state == "ready" for component in self.components.values())

    def stopped(self) -> "Snapshot":
        """The same stack, at rest."""
        components = {
            name: replace(component, state="stopped", detail="", process=None, command=())
            for name, component in self.components.items()
        }
        return replace(self, supervisor=None, components=components)


def save(path: Path, snapshot: Snapshot) -> None:
    """Write it in one step."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(asdict(snapshot), indent=1))
    partial.replace(path)


def load(path: Path) -> Snapshot | None:
    """Read it; None if there is none yet."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    components = {name: _component(entry) for name, entry in document["components"].items()}
    return Snapshot(_process(document["supervisor"]), int(document["port_base"]), components)


def _component(entry: dict[str, Any]) -> ComponentState:
    return ComponentState(**entry | {"process": _process(entry["process"]), "command": tuple(entry["command"])})


def _process(entry: dict[str, int] | None) -> ProcessRef | None:
    return None if entry is None else ProcessRef(**entry)
