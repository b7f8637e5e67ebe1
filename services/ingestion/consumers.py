"""The topics that ingestion reads, and the handler that each event goes to. Decodes and translates; decides nothing."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from services.ingestion.domain import Rejected
from services.ingestion.handlers import Intake, ingest, withdraw
from services.ingestion.ports import ErasureRequests
from services.ingestion.schema import PUBLISHED, SUBMITTED
from services.ingestion.wire import REJECTED, to_external_id, to_receipt, to_submission
from tailor.api.events.v1 import documents_pb2
from tailor.events.envelope import Event, decode

T = TypeVar("T")


def make_handlers(intake: Intake, erasures: ErasureRequests) -> Mapping[str, Callable[[Event], None]]:
    """The handler of each topic: the two that publishers write, and the rejections by anonymization."""

    def on_published(event: Event) -> None:
        receipt = to_receipt(event, intake.digest_key)
        if event.value is None:
            withdraw(intake.catalogue, erasures, receipt, _read(to_external_id, event))
        else:
            ingest(intake, receipt, _read(to_submission, event))

    def on_rejected(event: Event) -> None:
        rejected = decode(event, documents_pb2.DocumentRejected)
        if rejected.stage == documents_pb2.STAGE_ANONYMIZATION:
            intake.catalogue.release(rejected.document_id, rejected.submission_id)

    return {SUBMITTED: on_published, PUBLISHED: on_published, REJECTED: on_rejected}


def _read(translate: Callable[[Event], T], event: Event) -> T | Rejected:
    """The translated event, or the rejection that its translation raises."""
    try:
        return translate(event)
    except Rejected as rejected:
        return rejected
