"""Replays: sending documents through the barrier again, under a new policy or new detectors. Imports no library."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from services.ingestion.domain import Acceptance, FileReference

# Documents of a replay that are superseded under one erasure, and so share a receipt.
DOCUMENTS_PER_ERASURE = 100


class ReplayState(StrEnum):
    """The state of a replay."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    CANCELLED = "CANCELLED"


class ReplayOutcome(StrEnum):
    """What became of a document of a replay."""

    KEPT = "KEPT"
    FETCHED = "FETCHED"
    NEEDS_OWNER = "NEEDS_OWNER"
    CHANGED = "CHANGED"
    UNREACHABLE = "UNREACHABLE"
    UNREADABLE = "UNREADABLE"
    CURRENT = "CURRENT"
    ERASED = "ERASED"


SENT = (ReplayOutcome.KEPT, ReplayOutcome.FETCHED)


@dataclass(frozen=True)
class Replay:
    """One replay. `outcomes` counts its documents by outcome, without those that have none yet."""

    replay_id: str
    barrier: str
    state: ReplayState
    create_time: datetime
    end_time: datetime | None = None
    documents: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ReplayDocument:
    """A document of a running replay. `acceptance` is its newest version, None if that is not known; `digest` that of its text."""

    replay_id: str
    document_id: str
    number: int
    digest: str
    barrier: str
    acceptance: Acceptance | None
    reference: FileReference | None = None
