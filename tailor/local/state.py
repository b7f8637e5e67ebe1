"""The state of a stack, as stored in `stack.json`."""

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
    """The state of one component. `failed` means that it ended several times without becoming ready; restarts continue every 10 s.

    `last_end` says when and how its last process ended, if it was restarted.
    """

    name: str
    state: Status
    detail: str
    addresses: Mapping[str, str]
    restarts: int = 0
    process: ProcessRef | None = None
    command: tuple[str, ...] = ()
    last_end: str = ""


@dataclass(frozen=True)
class StackSnapshot:
    """A stack at one moment. Without a supervisor, it is stopped."""

    supervisor: ProcessRef | None
    port_base: int
    components: Mapping[str, ComponentState]

    @property
    def ports(self) -> Ports:
        """The stack's ports."""
        return Ports(self.port_base)

    @property
    def running(self) -> bool:
        """True if the supervisor is alive. A killed supervisor leaves its last state behind, so the process is checked."""
        return self.supervisor is not None and self.supervisor.is_alive()

    @property
    def ready(self) -> bool:
        """True if every component is ready."""
        return bool(self.components) and all(component.state == "ready" for component in self.components.values())

    def describe_waiting(self) -> str:
        """The components that are not ready, each with what it is waiting for."""
        parts = [component for component in self.components.values() if component.state != "ready"]
        return ", ".join(f"{part.name} ({part.detail or part.state})" for part in parts) or "nothing"

    def stopped(self) -> "StackSnapshot":
        """This snapshot, with every component stopped."""
        components = {
            name: replace(component, state="stopped", detail="", process=None, command=())
            for name, component in self.components.items()
        }
        return replace(self, supervisor=None, components=components)


def save(path: Path, snapshot: StackSnapshot) -> None:
    """Write the snapshot, atomically."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(asdict(snapshot), indent=1))
    partial.replace(path)


def load(path: Path) -> StackSnapshot | None:
    """Read the snapshot, or return None if there is none yet."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    components = {name: _component(entry) for name, entry in document["components"].items()}
    return StackSnapshot(_process(document["supervisor"]), int(document["port_base"]), components)


def _component(entry: dict[str, Any]) -> ComponentState:
    return ComponentState(**entry | {"process": _process(entry["process"]), "command": tuple(entry["command"])})


def _process(entry: dict[str, int] | None) -> ProcessRef | None:
    return None if entry is None else ProcessRef(**entry)
