"""The ports of a stack: one block, chosen once, and never shared by two stacks."""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tailor.errors import FailedPrecondition, Reason, ResourceExhausted
from tailor.local.layout import SERVICES

BASE_VARIABLE = "TAILOR_LOCAL_PORT_BASE"
STORE_PORTS = (
    "broker",
    "s3",
    "s3-grpc",
    "filer",
    "filer-grpc",
    "master",
    "master-grpc",
    "volume",
    "volume-grpc",
    "database",
)
PORT_NAMES = (
    *STORE_PORTS,
    *(f"{service}-{kind}" for service in SERVICES for kind in ("rpc", "status")),
    "inference-http",
    "console-http",
)
BLOCK = 32
# Below the range that Linux uses for outgoing connections.
FIRST, LAST = 20000, 32767


@dataclass(frozen=True)
class Ports:
    """Consecutive ports from `base`, in the order of PORT_NAMES."""

    base: int

    def __getitem__(self, name: str) -> int:
        return self.base + PORT_NAMES.index(name)

    def address(self, name: str) -> str:
        """HOST:PORT for a name."""
        return f"127.0.0.1:{self[name]}"


@dataclass(frozen=True)
class Reservation:
    """Ports that no other stack of this machine can take until it is closed."""

    ports: Ports
    _claims: ExitStack = field(repr=False)

    def close(self) -> None:
        """Release the ports."""
        self._claims.close()


def reserve(state_dir: Path, preferred: int | None = None) -> Reservation:
    """Reserve free ports: the block that TAILOR_LOCAL_PORT_BASE names, else the preferred one, else any.

    Raises FailedPrecondition(PORTS_TAKEN) if the configured block is not free, ResourceExhausted(NO_FREE_PORTS) if no block is.
    """
    configured = os.environ.get(BASE_VARIABLE)
    if configured:
        reservation = _claim(int(configured))
        if reservation is None:
            raise FailedPrecondition(
                Reason.PORTS_TAKEN,
                f"Some of the {len(PORT_NAMES)} ports from {configured} ({BASE_VARIABLE}) are in use; set another number.",
            )
        return reservation
    for base in _candidates(state_dir, preferred):
        reservation = _claim(base)
        if reservation is not None:
            return reservation
    raise ResourceExhausted(
        Reason.NO_FREE_PORTS, f"There are no {BLOCK} free ports in a row; stop other stacks or set {BASE_VARIABLE}."
    )


def _candidates(state_dir: Path, preferred: int | None) -> Iterator[int]:
    if preferred is not None:
        yield preferred
    blocks = (LAST + 1 - FIRST) // BLOCK
    start = int.from_bytes(hashlib.sha256(str(state_dir).encode()).digest()[:4])
    yield from (FIRST + (start + step) % blocks * BLOCK for step in range(blocks))


def _claim(base: int) -> Reservation | None:
    with ExitStack() as claims:
        for block in sorted({base // BLOCK, (base + len(PORT_NAMES) - 1) // BLOCK}):
            claim = claims.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            try:
                # An abstract socket name is released as soon as its process ends, even if it is killed.
                claim.bind(f"\0tailor-ports-{block}")
            except OSError:
                return None
        if not all(_is_free(base + offset) for offset in range(len(PORT_NAMES))):
            return None
        return Reservation(Ports(base), claims.pop_all())


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
