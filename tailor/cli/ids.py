"""Ids by their first digits, as arguments and options take them: the one place that completes them.

An id that is given whole is not looked up. Adapters and datasets have digests, which the registry completes.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import typer

from tailor.api.anonymization.v1 import review_pb2
from tailor.api.ingestion.v1 import replay_pb2
from tailor.api.registry.v1 import people_pb2, registry_pb2
from tailor.api.synthetic.v1 import synthesis_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import pages
from tailor.cli.connections import Connections
from tailor.cli.session import CommandSession
from tailor.errors import InvalidArgument, NotFound, Reason

MAX_NAMED = 5
MAX_PAGE, MAX_SAMPLES = 200, 100


@dataclass(frozen=True)
class IdKind:
    """How the ids of a noun begin, their number of digits, the reason for an unknown one, and the command that lists them."""

    prefix: str
    noun: str
    unknown: Reason
    lists: str
    digits: int = 32


Lister = Callable[[Connections, dict[str, Any], str], Iterable[str]]


def complete(kind: IdKind, text: str, ids: Callable[[str], Iterable[str]]) -> str:
    """The one of `ids` that begins with the text, with or without the kind's prefix.

    A whole id, and a text that cannot begin one, are returned without listing any. Raises NotFound if none begins so, InvalidArgument
    (AMBIGUOUS_ID) if several do; the message names them.
    """
    digits = text.removeprefix(kind.prefix)
    if not re.fullmatch("[0-9a-f]+", digits) or (text != digits and len(digits) >= kind.digits):
        return text
    start = f"{kind.prefix}{digits}"
    found = sorted({name for name in ids(start) if name.startswith(start)})
    if start in found or len(found) == 1:
        return start if start in found else found[0]
    if not found:
        raise NotFound(kind.unknown, f"No {kind.noun} has an id that begins with {start}. `{kind.lists}` lists them.")
    named = ", ".join(found[:MAX_NAMED]) + (" and others" if len(found) > MAX_NAMED else "")
    raise InvalidArgument(Reason.AMBIGUOUS_ID, f"Several ids begin with {start}: {named}. Give more digits.")


def _completes(kind: IdKind, ids: Lister) -> Callable[[typer.Context, str], str]:
    """The callback of an argument or option that takes an id of this kind."""

    def callback(context: typer.Context, value: str) -> str:
        session: CommandSession | None = context.obj
        # There is none if a command is only parsed, not run.
        return (
            value
            if session is None
            else complete(kind, value, lambda start: ids(session.connections, context.params, start))
        )

    return callback


def _complete_each(kind: IdKind, ids: Lister) -> Callable[[typer.Context, list[str] | None], list[str]]:
    """The same for an option that may be repeated."""
    one = _completes(kind, ids)

    def callback(context: typer.Context, value: list[str] | None) -> list[str]:
        return [one(context, item) for item in value or ()]

    return callback


def _listed(call: Callable[[Connections], Any], request: Callable[..., Any], field: str) -> Lister:
    """Every id that a service lists."""

    def ids(connections: Connections, params: dict[str, Any], start: str) -> Iterator[str]:
        del params, start
        return (getattr(item, field) for item in pages(call(connections), request(page_size=MAX_PAGE)))

    return ids


def _samples(connections: Connections, params: dict[str, Any], start: str) -> Iterator[str]:
    del start
    request = synthesis_pb2.ListSamplesRequest(synthesis_id=params["synthesis_id"], page_size=MAX_SAMPLES)
    return (item.row_id for item in pages(connections.syntheses.ListSamples, request))


def _erased_documents(connections: Connections, params: dict[str, Any], start: str) -> Iterator[str]:
    del params, start
    items = pages(connections.registry.ListErasures, registry_pb2.ListErasuresRequest(page_size=MAX_PAGE))
    return (document_id for item in items for document_id in item.document_ids)


def _passages(connections: Connections, params: dict[str, Any], start: str) -> Iterator[str]:
    """Those that `tailor review next` shows to this reviewer."""
    del params, start
    for kind in (review_pb2.PASSAGE_KIND_SAMPLE, review_pb2.PASSAGE_KIND_DISAGREEMENT):
        yield connections.review.NextPassage(review_pb2.NextPassageRequest(kind=kind)).passage.passage_id


def _documents(connections: Connections, params: dict[str, Any], start: str) -> list[str]:
    request = registry_pb2.ListDocumentsRequest(specialist=params.get("specialist") or "", document_id=start)
    answer = connections.registry.ListDocuments(request)
    return [item.anonymized.document_id for item in answer.documents]


def _drafts(connections: Connections, params: dict[str, Any], start: str) -> list[str]:
    del params
    return [connections.registry.Trace(registry_pb2.TraceRequest(draft_id=start, draft_only=True)).draft.draft_id]


RUNS = IdKind("run_", "run", Reason.UNKNOWN_RUN, "tailor run list")
SYNTHESES = IdKind("syn_", "synthesis", Reason.UNKNOWN_SYNTHESIS, "tailor synthesis list")
SAMPLES = IdKind("row_", "row", Reason.UNKNOWN_SAMPLE, "tailor synthesis samples ID")
KEYS = IdKind("key_", "key", Reason.UNKNOWN_KEY, "tailor key list", 16)
PEOPLE = IdKind("per_", "person", Reason.UNKNOWN_PERSON, "tailor person list", 16)
REPLAYS = IdKind("rpl_", "replay", Reason.UNKNOWN_REPLAY, "tailor replay list")
ERASURES = IdKind("ers_", "erasure", Reason.UNKNOWN_ERASURE, "tailor erasure list")
PASSAGES = IdKind("psg_", "waiting passage", Reason.UNKNOWN_PASSAGE, "tailor review next")
DRAFTS = IdKind("drf_", "draft", Reason.UNKNOWN_DRAFT, "tailor specialist feedback SPECIALIST")
DOCUMENTS = IdKind("doc_", "anonymised document", Reason.UNKNOWN_DOCUMENT, "tailor document list")
ERASED_DOCUMENTS = IdKind("doc_", "erased document", Reason.UNKNOWN_DOCUMENT, "tailor erasure show ID")

# The callbacks of arguments and options.
run_id = _completes(RUNS, _listed(lambda to: to.training.ListRuns, training_pb2.ListRunsRequest, "run_id"))
synthesis_id = _completes(
    SYNTHESES, _listed(lambda to: to.syntheses.ListSyntheses, synthesis_pb2.ListSynthesesRequest, "synthesis_id")
)
sample_id = _completes(SAMPLES, _samples)
key_id = _completes(KEYS, _listed(lambda to: to.registry.ListKeys, registry_pb2.ListKeysRequest, "key_id"))
person_id = _completes(PEOPLE, _listed(lambda to: to.people.ListPeople, people_pb2.ListPeopleRequest, "person_id"))
replay_id = _completes(REPLAYS, _listed(lambda to: to.replays.ListReplays, replay_pb2.ListReplaysRequest, "replay_id"))
erasure_id = _completes(
    ERASURES, _listed(lambda to: to.registry.ListErasures, registry_pb2.ListErasuresRequest, "erasure_id")
)
passage_id = _completes(PASSAGES, _passages)
draft_id = _completes(DRAFTS, _drafts)
document_id = _completes(DOCUMENTS, _documents)
document_ids = _complete_each(DOCUMENTS, _documents)


def erased_id(context: typer.Context, value: str) -> str:
    """An erasure's id, or that of a document that was erased."""
    if value.startswith(ERASED_DOCUMENTS.prefix):
        return _completes(ERASED_DOCUMENTS, _erased_documents)(context, value)
    return erasure_id(context, value)
