"""The topics that anonymization reads (erasures and policies: `bootstrap.py`), and the handler of each. Only translates."""

from collections.abc import Callable, Container

from services.anonymization.handlers import Barrier, pass_document
from services.anonymization.wire import to_ingested
from tailor.api.events.v1 import documents_pb2
from tailor.events.envelope import Event, decode

INGESTED = "document.ingested.v1"


def on_ingested(barrier: Barrier, erased: Container[str]) -> Callable[[Event], None]:
    """The handler of document.ingested.v1. An erased document is removed from quarantine and goes no further."""

    def handle(event: Event) -> None:
        ingested = to_ingested(decode(event, documents_pb2.DocumentIngested))
        if ingested.document_id in erased:
            barrier.quarantine.delete(ingested.text)
        else:
            pass_document(barrier, ingested)

    return handle
