"""Sends documents through the barrier again, one after the other: from the kept text, or fetched again by reference.

A process that is killed loses nothing and sends nothing twice: a version, its event and the outcome are stored in one transaction.
"""

import time
from dataclasses import dataclass

from services.ingestion.adapters.replays import SqlReplays
from services.ingestion.domain import ParsedText, Rejected, RejectionReason, text_digest
from services.ingestion.handlers import Intake, fetch_again
from services.ingestion.replay_domain import SENT, ReplayDocument, ReplayOutcome
from tailor.errors import TailorError
from tailor.jobs import HeldJob
from tailor.retry import Stopped


@dataclass(frozen=True)
class ReplayRunner:
    """Runs replays. `per_minute` documents are sent at most."""

    intake: Intake
    replays: SqlReplays
    per_minute: int

    def run(self, job: HeldJob) -> None:
        """Send the documents of the job's replay (a `jobs.Handle`). Blocks."""
        while (document := self.replays.next_document(job)) is not None:
            if job.stop.is_set():
                raise Stopped
            started = time.monotonic()
            if replay_document(job, self.intake, self.replays, document) in SENT:
                job.stop.wait(max(0.0, 60.0 / self.per_minute - (time.monotonic() - started)))


def replay_document(job: HeldJob, intake: Intake, replays: SqlReplays, document: ReplayDocument) -> ReplayOutcome:
    """Send one document through the barrier again, or record why only its owner can. Blocks while it is fetched."""
    parsed, outcome = _read(intake, document)
    if parsed is None:
        replays.record(job, document, outcome)
        return outcome
    text = parsed
    return replays.send(
        job, document, text, outcome, lambda document_id, sequence: intake.quarantine.write(document_id, sequence, text)
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
