"""The topics that ingestion reads (erasures: `bootstrap.py`), and the handler of each. Decodes and translates; decides nothing."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from services.ingestion.domain import LaterRejection, Rejected, Submission
from services.ingestion.handlers import Intake, ingest, withdraw
from services.ingestion.ports import RequestErasure
from services.ingestion.schema import KINDS
from services.ingestion.wire import REJECTED, to_claimed_id, to_external_id, to_receipt, to_submission
from tailor.api.events.v1 import documents_pb2
from tailor.events.envelope import Event, decode
from tailor.wire import enum_name

T = TypeVar("T")


def make_handlers(intake: Intake, request_erasure: RequestErasure) -> Mapping[str, Callable[[Event], None]]:
    """The handler of each topic: those that publishers write, and the rejections by anonymization."""

    def on_published(event: Event) -> None:
        receipt = to_receipt(event, intake.digest_key)
        if event.value is None:
            external_id = _read(to_external_id, event)
            claimed_id = external_id if isinstance(external_id, str) else ""
            receipt = replace(receipt, claimed_id=claimed_id)
            withdraw(intake.catalogue, request_erasure, receipt, external_id, kind=KINDS[event.topic])
        else:
            submission = _read(to_submission, event)
            claimed_id = submission.external_id if isinstance(submission, Submission) else to_claimed_id(event)
            ingest(intake, replace(receipt, claimed_id=claimed_id), submission)

    def on_rejected(event: Event) -> None:
        rejected = decode(event, documents_pb2.DocumentRejected)
        if rejected.stage == documents_pb2.STAGE_ANONYMIZATION:
            reason = enum_name(documents_pb2.RejectionReason, rejected.reason, "REJECTION_REASON_")
            later = LaterRejection(reason, rejected.hint)
            intake.catalogue.release(rejected.document_id, rejected.submission_id, later)

    return {**dict.fromkeys(KINDS, on_published), REJECTED: on_rejected}


def _read(translate: Callable[[Event], T], event: Event) -> T | Rejected:
    """The translated event, or the rejection that its translation raises."""
    try:
        return translate(event)
    except Rejected as rejected:
        return rejected
