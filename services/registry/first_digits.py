"""Digests and ids by their first digits, among those that the caller may see."""

import re

from services.registry.domain import FactKind
from services.registry.queries import Queries
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.rpc.auth import current_caller

DIGEST_PREFIX = re.compile(r"[0-9a-f]{6,64}")
DRAFT_PREFIX = re.compile(r"drf_[0-9a-f]{6,31}")
MATCH_REASONS = {
    FactKind.DATASET: (Reason.UNKNOWN_DATASET, Reason.AMBIGUOUS_DATASET, "dataset"),
    FactKind.ADAPTER: (Reason.UNKNOWN_ADAPTER, Reason.AMBIGUOUS_ADAPTER, "adapter"),
}
# Of those that begin with the same digits, a message names the first.
MAX_MATCHES, MAX_NAMED = 50, 5


def find_fact(queries: Queries, kind: FactKind, prefix: str) -> bytes:
    """The dataset or adapter whose digest begins with the prefix, among those that the caller may see.

    Raises NotFound without a match, InvalidArgument with several or for an invalid prefix."""
    if not DIGEST_PREFIX.fullmatch(prefix):
        raise InvalidArgument(
            Reason.INVALID_REQUEST,
            "The digest is invalid.",
            field_violations={"digest": "must be 64 hexadecimal digits, or at least the first 6 of them"},
        )
    payloads = queries.facts_by_digest(kind, prefix, current_caller().specialists, MAX_NAMED)
    unknown, ambiguous, noun = MATCH_REASONS[kind]
    if not payloads:
        raise NotFound(unknown, f"No {noun} has a digest that begins with {prefix}.")
    if len(payloads) > 1:
        digests = ", ".join(_digest(kind, payload) for payload in payloads)
        raise InvalidArgument(
            ambiguous,
            f"Several {noun}s have a digest that begins with {prefix}: {digests}. Give more digits.",
            field_violations={"digest": "must have more digits"},
        )
    return payloads[0]


def complete_draft_id(queries: Queries, start: str) -> str:
    """The id of the one draft that the caller may see and whose id begins so; else `start`. Raises InvalidArgument if several do."""
    if not DRAFT_PREFIX.fullmatch(start):
        return start
    caller = current_caller()
    # Drafts of the base have no specialist.
    visible = [*caller.specialists, ""] if caller.specialists else []
    payloads = queries.facts_by_digest(FactKind.DRAFT, start, visible, MAX_MATCHES)
    drafts = map(drafts_pb2.DraftCreated.FromString, payloads)
    found = [draft.draft_id for draft in drafts if caller.role != "ROLE_CALLER" or draft.key_id == caller.key_id]
    if len(found) > 1:
        named = ", ".join(found[:MAX_NAMED])
        raise InvalidArgument(Reason.AMBIGUOUS_ID, f"Several ids begin with {start}: {named}. Give more digits.")
    return found[0] if found else start


def _digest(kind: FactKind, payload: bytes) -> str:
    message = models_pb2.DatasetBuilt if kind is FactKind.DATASET else models_pb2.AdapterTrained
    return message.FromString(payload).digest
