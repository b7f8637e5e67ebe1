"""Erasing documents: from ingestion's database and quarantine, and the request to the registry if a publisher withdraws one."""

from typing import Any

import grpc
from sqlalchemy import Engine, delete, select, update

from services.ingestion.adapters.tables import DOCUMENTS, SUBMISSIONS
from services.ingestion.ports import ErasureRequests
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.events.erased import Erased, Forgotten
from tailor.rpc.status import wire_errors
from tailor.sql import transaction
from tailor.storage.buckets import QUARANTINE
from tailor.storage.protocol import ObjectStore

REASON = "tombstone"
SECONDS = 10.0


class DocumentEraser:
    """Erases everything but the keyed hash of the publisher's id, which recognises the document if it is published again."""

    def __init__(self, engine: Engine, store: ObjectStore) -> None:
        self._engine = engine
        self._store = store

    def forget(self, erased: Erased) -> Forgotten:
        """Clear the publisher's id and the file name, delete the submissions and the objects in quarantine. Idempotent."""
        is_erased = DOCUMENTS.c.document_id == erased.document_id
        cleared: dict[str, Any] = {
            "external_id": "",
            "file_name": "",
            "digest": None,
            "reference": b"",
            "erasure_id": erased.erasure_id,
        }
        with transaction(self._engine) as connection:
            previous = connection.scalar(select(DOCUMENTS.c.erasure_id).where(is_erased).with_for_update())
            connection.execute(update(DOCUMENTS).where(is_erased).values(cleared))
            hashes = select(DOCUMENTS.c.external_hash).where(is_erased).scalar_subquery()
            is_of_document = SUBMISSIONS.c.document_id == erased.document_id
            deletion = delete(SUBMISSIONS).where(is_of_document | (SUBMISSIONS.c.external_hash == hashes))
            submissions = connection.execute(deletion).rowcount
        folders = (f"documents/{erased.document_id}/", f"kept/{erased.document_id}/")
        keys = [key for folder in folders for key in self._store.list_keys(QUARANTINE, folder)]
        for key in keys:
            self._store.delete(QUARANTINE, key)
        return Forgotten({"entries": int(previous == ""), "submissions": submissions, "objects": len(keys)})

    def lift(self, document_id: str) -> None:
        """Allow the document to be published again."""
        with transaction(self._engine) as connection:
            connection.execute(update(DOCUMENTS).where(DOCUMENTS.c.document_id == document_id).values(erasure_id=""))


class RegistryErasures(ErasureRequests):
    """Requests erasures from the registry, which has every service forget the document."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def request(self, document_id: str, request_id: str) -> None:
        request = registry_pb2.EraseRequest(document_ids=[document_id], request_id=request_id, reason=REASON)
        with wire_errors("registry"):
            self._stub.Erase(request, timeout=SECONDS)
