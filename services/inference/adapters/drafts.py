"""Texts of drafts in the drafts bucket, and drafts in the registry."""

import hashlib
import json
import time

import grpc

from services.inference import wire
from services.inference.domain import (
    ChatMessage,
    DraftFeedback,
    DraftRecord,
    OutcomeReport,
    StoredFeedback,
    StoredOutcome,
    Transcript,
)
from tailor.api.registry.v1 import feedback_pb2_grpc, outcomes_pb2, outcomes_pb2_grpc, registry_pb2, registry_pb2_grpc
from tailor.codec import encode
from tailor.errors import NotFound
from tailor.rpc.channel import wire_errors
from tailor.storage.buckets import DRAFTS, DRAWN
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

TEXTS = "texts/"
REGISTRY_SECONDS = 5
FEEDBACK_SECONDS = 60
CATALOGUE_SECONDS = 10.0
PAUSE_SECONDS = 0.05


class DraftBucket:
    """Stores anonymised transcripts under their own digests, those of drawn prompts in the folder that synthetic may erase from."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, transcript: Transcript) -> Ref:
        """Idempotent. Raises Unavailable while the store does not answer."""
        messages = [{"role": message.role, "content": message.content} for message in transcript.messages]
        data = json.dumps({"messages": messages, "answer": transcript.answer}, ensure_ascii=False).encode()
        folder = DRAWN if transcript.is_drawn else TEXTS
        return self._store.put(DRAFTS, f"{folder}{hashlib.sha256(data).hexdigest()}.json", data, "application/json")

    def get(self, ref: Ref) -> Transcript | None:
        """A stored text; None once it has expired."""
        try:
            value = json.loads(self._store.get(ref))
        except NotFound:
            return None
        messages = tuple(ChatMessage(message["role"], message["content"]) for message in value["messages"])
        return Transcript(messages, value["answer"])


class DraftArchive:
    """Drafts that were served: the registry's, and their texts. Every method raises Unavailable while the registry does not answer."""

    def __init__(self, channel: grpc.Channel, store: ObjectStore) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)
        self._feedback = feedback_pb2_grpc.FeedbackServiceStub(channel)
        self._outcomes = outcomes_pb2_grpc.OutcomeServiceStub(channel)
        self.texts = DraftBucket(store)

    def draft(self, draft_id: str) -> DraftRecord:
        """A draft as it was published last. Blocks for at most REGISTRY_SECONDS. Raises NotFound if the catalogue does not have it."""
        request = registry_pb2.TraceRequest(draft_id=draft_id, draft_only=True)
        with wire_errors("registry"):
            return wire.to_record(self._stub.Trace(request, timeout=REGISTRY_SECONDS).draft)

    def has_text(self, draft_id: str) -> bool:
        """True if the registry knows the draft with its text."""
        try:
            return self.draft(draft_id).draft.text is not None
        except NotFound:
            return False

    def wait_for_text(self, draft_id: str) -> None:
        """Block until the registry has the draft with its text, for at most CATALOGUE_SECONDS. A slow broker is not a failure."""
        end = time.monotonic() + CATALOGUE_SECONDS
        while not self.has_text(draft_id) and time.monotonic() < end:
            time.sleep(PAUSE_SECONDS)

    def store_feedback(self, feedback: DraftFeedback, key_id: str) -> StoredFeedback:
        """Store what the key's holder says of a draft. Blocks for at most FEEDBACK_SECONDS, because the texts are anonymised.

        Raises NotFound, and InvalidArgument for wrong fields.
        """
        request = wire.to_store_feedback(feedback, key_id)
        with wire_errors("registry"):
            stored = self._feedback.StoreFeedback(request, timeout=FEEDBACK_SECONDS).feedback
        return wire.to_stored_feedback(stored)

    def store_outcome(self, report: OutcomeReport, key_id: str) -> StoredOutcome:
        """Store what a draft was worth. Blocks for at most REGISTRY_SECONDS.

        Raises NotFound for an unknown specialist, and InvalidArgument for wrong fields.
        """
        request = encode(outcomes_pb2.StoreOutcomeRequest, report, caller_id=key_id)
        with wire_errors("registry"):
            return wire.to_stored_outcome(self._outcomes.StoreOutcome(request, timeout=REGISTRY_SECONDS).outcome)
