"""Sends documents through the barrier again, one after the other: from the kept text, or fetched again by reference.

A process that is killed loses nothing and sends nothing twice: a version, its event and the outcome are stored in one transaction.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.ingestion.adapters.replays import SqlReplays
from services.ingestion.domain import ParsedText, Rejected, RejectionReason, text_digest
from services.ingestion.handlers import Intake, fetch_again
from services.ingestion.replay_domain import SENT, ReplayDocument, ReplayOutcome
from tailor.errors import TailorError
from tailor.logging import get_logger

log = get_logger(__name__)

IDLE_SECONDS = 2.0
RETRY_SECONDS = 5.0
# Documents that a replica sends before another one may go on.
BATCH = 50


@dataclass(frozen=True)
class ReplayRunner:
    """Works on the running replay. `per_minute` documents are sent at most."""

    intake: Intake
    replays: SqlReplays
    per_minute: int
    clock: Callable[[], float] = time.monotonic

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Blocks; a lost database or store is waited for."""
        while not stop.is_set():
            try:
                worked = self.work(stop)
            except TailorError as error:
                if not error.retryable:
                    raise
                log.warning("replay waits", reason=error.reason)
                stop.wait(RETRY_SECONDS)
            else:
                if not worked:
                    stop.wait(IDLE_SECONDS)

    def work(self, stop: threading.Event) -> bool:
        """Send a batch; False if there is nothing to do or another replica does it."""
        with self.replays.exclusive() as is_mine:
            if not is_mine:
                return False
            for _ in range(BATCH):
                document = None if stop.is_set() else self.replays.next_document()
                if document is None:
                    return False
                started = self.clock()
                if replay_document(self.intake, self.replays, document) in SENT:
                    stop.wait(max(0.0, 60.0 / self.per_minute - (self.clock() - started)))
        return True


def replay_document(intake: Intake, replays: SqlReplays, document: ReplayDocument) -> ReplayOutcome:
    """Send one document through the barrier again, or record why only its owner can. Blocks while it is fetched."""
    parsed, outcome = _read(intake, document)
    if parsed is None:
        replays.record(document, outcome)
        return outcome
    text = parsed
    return replays.send(
        document, text, outcome, lambda document_id, sequence: intake.quarantine.write(document_id, sequence, text)
    )


def _read(intake: Intake, document: ReplayDocument) -> tuple[ParsedText | None, ReplayOutcome]:
    """The document's own text and where it was; or None, and why there is none."""
    acceptance = document.acceptance
    if acceptance is None:
        return None, ReplayOutcome.NEEDS_OWNER
    try:
        parsed = intake.quarantine.read_kept(document.document_id, acceptance.sequence, acceptance)
    except TailorError as error:
        if error.retryable:
            raise
        return None, ReplayOutcome.UNREADABLE
    if parsed is not None:
        is_own = text_digest(intake.digest_key, parsed) == document.digest
        return (parsed, ReplayOutcome.KEPT) if is_own else (None, ReplayOutcome.UNREADABLE)
    if document.reference is None:
        return None, ReplayOutcome.NEEDS_OWNER
    try:
        parsed = fetch_again(intake, document.reference, acceptance.kind)
    except Rejected as rejected:
        is_other = rejected.reason not in (RejectionReason.UNREACHABLE, RejectionReason.NOT_ALLOWED)
        return None, ReplayOutcome.CHANGED if is_other else ReplayOutcome.UNREACHABLE
    is_own = text_digest(intake.digest_key, parsed) == document.digest
    return (parsed, ReplayOutcome.FETCHED) if is_own else (None, ReplayOutcome.CHANGED)
