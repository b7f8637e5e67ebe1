"""Texts of drafts: the bucket that holds them, and the catalogue that knows of them."""

import hashlib
import json

import grpc

from services.inference.domain import AdapterName, Draft, DraftRecord, Said, Served, Turn
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.errors import NotFound
from tailor.rpc.channel import wire_errors
from tailor.storage.buckets import DRAFTS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

CATALOGUE_SECONDS = 5


class DraftBucket:
    """Satisfies `keeping.Bucket`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, said: Said) -> Ref:
        """Store a text under its own digest."""
        messages = [{"role": turn.role, "content": turn.content} for turn in said.turns]
        data = json.dumps({"messages": messages, "answer": said.answer}, ensure_ascii=False).encode()
        return self._store.put(DRAFTS, f"texts/{hashlib.sha256(data).hexdigest()}.json", data, "application/json")


class DraftArchive:
    """Satisfies `domain.Archive`: the registry knows every draft, the bucket holds the texts."""

    def __init__(self, channel: grpc.Channel, store: ObjectStore) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)
        self._store = store

    def draft(self, draft_id: str) -> DraftRecord:
        """A draft as it was stated last."""
        request = registry_pb2.TraceRequest(draft_id=draft_id, draft_only=True)
        with wire_errors("registry"):
            return to_record(self._stub.Trace(request, timeout=CATALOGUE_SECONDS).draft)

    def text(self, ref: Ref) -> Said | None:
        """A kept text; None once the bucket holds it no more."""
        try:
            value = json.loads(self._store.get(ref))
        except NotFound:
            return None
        return Said(tuple(Turn(one["role"], one["content"]) for one in value["messages"]), value["answer"])


def to_record(message: drafts_pb2.DraftCreated) -> DraftRecord:
    """A draft from its event."""
    # Where the adapter's manifest is does not concern whoever looks at a draft.
    adapter = AdapterName(message.adapter_digest, Ref("", "", 0)) if message.adapter_digest else None
    text = message.text
    draft = Draft(
        draft_id=message.draft_id,
        served=Served(
            message.specialist, message.generation, adapter, message.dataset_digest, is_canary=message.canary
        ),
        key_id=message.key_id,
        prompt_digest=message.prompt_digest,
        answer_digest=message.answer_digest,
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        finish_reason=message.finish_reason,
        first_token_seconds=message.first_token_seconds,
        seconds=message.seconds,
        text=Ref(text.uri, text.sha256, text.size_bytes) if message.HasField("text") else None,
        moment=message.create_time.ToMilliseconds() / 1000,
    )
    return DraftRecord(draft, message.base)
