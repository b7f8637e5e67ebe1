"""Erasing documents: from ingestion's database and quarantine, and the request to the registry if a publisher withdraws one."""

import grpc
from sqlalchemy import Engine, Row

from services.ingestion.adapters.tables import DOCUMENTS, SUBMISSIONS
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.events.erased import Erased, Forgotten
from tailor.rows import Rows
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
        cleared = {
            "external_id": "",
            "file_name": "",
            "digest": None,
            "reference": b"",
            "erasure_id": erased.erasure_id,
        }
        with transaction(self._engine) as connection:
            documents, records = Rows(connection, DOCUMENTS, Row), Rows(connection, SUBMISSIONS, Row)
            known = documents.lock(document_id=erased.document_id)
            documents.update(cleared, document_id=erased.document_id)
            is_named = records.c.external_hash == (known.external_hash if known else None)
            submissions = records.delete((records.c.document_id == erased.document_id) | is_named)
        folders = (f"documents/{erased.document_id}/", f"kept/{erased.document_id}/")
        keys = [key for folder in folders for key in self._store.list_keys(QUARANTINE, folder)]
        for key in keys:
            self._store.delete(QUARANTINE, key)
        return Forgotten(
            {
                "entries": int(known is not None and known.erasure_id == ""),
                "submissions": submissions,
                "objects": len(keys),
            }
        )

    def lift(self, document_id: str) -> None:
        """Allow the document to be published again."""
        Rows(self._engine, DOCUMENTS, Row).update({"erasure_id": ""}, document_id=document_id)


class RegistryErasures:
    """Requests erasures from the registry, which has every service forget the document. Satisfies `ports.RequestErasure`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def __call__(self, document_id: str, request_id: str) -> None:
        request = registry_pb2.EraseRequest(document_ids=[document_id], request_id=request_id, reason=REASON)
        with wire_errors("registry"):
            self._stub.Erase(request, timeout=SECONDS)
