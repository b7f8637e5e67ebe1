"""What is found after a history, with the means of a client: the log, gRPC, and the stores. Also what the raw topics still have."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from bench.chaos_check import DraftFact, Found, FoundErasure, FoundRun, FoundSubmission, History
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import list_adapters, pages
from tailor.cli.connections import Connections
from tailor.cli.events import decode
from tailor.cli.reader import Start, TopicReader
from tailor.cli.records import SUBMITTED
from tailor.errors import NotFound
from tailor.events.topics import load_topics
from tailor.local import secrets, stack
from tailor.local.environment import StackPlan
from tailor.local.own_stores import load_own_stores
from tailor.settings import KafkaSettings
from tailor.wire import enum_name
from tests.e2e.places import buckets, databases

# The log is read to its end, and until nothing more comes for a moment.
IDLE_POLLS = 5


def find(
    connections: Connections, running: stack.Stack, history: History, not_ready: Iterable[str], pairs: int
) -> Found:
    """Ask everything and everyone. Raises TailorError if someone does not answer."""
    end = Found(not_ready=tuple(not_ready), pairs=pairs)
    _read_log(connections.kafka_reader(), end)
    end.submissions = {name: _submissions(connections, name) for name in history.documents}
    _read_catalogue(connections, end)
    _read_training(connections, end)
    drafts = {call.draft_id for call in history.calls if call.draft_id}
    end.traced = {draft_id for draft_id in drafts if _is_traced(connections, draft_id)}
    markers = {document.marker for document in history.documents.values()}
    texts = [text for _, text in _places(running)]
    end.held = {marker for marker in markers if any(marker in text for text in texts)}
    return end


def read_topics(settings: KafkaSettings, topics: list[str]) -> Iterator[tuple[str, Any]]:
    """Every record of the topics, with its topic's name."""
    with TopicReader(settings, topics, Start.BEGINNING) as reader:
        idle = 0
        while idle < IDLE_POLLS:
            records = reader.poll()
            idle = 0 if records else idle + 1
            for record in records:
                yield reader.topic(record), record


def _read_log(settings: KafkaSettings, end: Found) -> None:
    facts: dict[str, list[Any]] = defaultdict(list)
    topics = [name for name, topic in load_topics().items() if not topic.raw_zone]
    for topic, record in read_topics(settings, topics):
        if record.value is not None:
            facts[topic].append(decode(topic, record.value))
    end.passed = _sets(
        (event.submission_id, f"{event.document_id} passed as version {event.version.sequence} {event.text.sha256}")
        for event in facts["document.anonymized.v1"]
    )
    end.rejected = _sets(
        (event.submission_id, f"{event.document_id} {_reason(event.reason)}") for event in facts["document.rejected.v1"]
    )
    end.judgements = _sets((event.judgement_id, tuple(event.ranking)) for event in facts["judgement.recorded.v1"])
    end.trained = _sets((f"{event.run_id}/{event.stage}", event.digest) for event in facts["adapter.trained.v1"])
    end.serving = _sets(
        ((event.specialist, event.generation), event.adapter_digest) for event in facts["specialist.serving.v1"]
    )
    end.drafts = _sets((event.draft_id, _draft(event)) for event in facts["draft.created.v1"])
    end.dead_letters = sorted(
        {
            f"{event.topic}/{event.partition}/{event.offset} of {event.consumer} ({event.reason})"
            for event in facts["event.dead_lettered.v1"]
        }
    )


def _sets(facts: Iterable[tuple[Any, Any]]) -> dict[Any, set[Any]]:
    sets: dict[Any, set[Any]] = defaultdict(set)
    for key, fact in facts:
        sets[key].add(fact)
    return dict(sets)


def _reason(reason: int) -> str:
    return str(enum_name(documents_pb2.RejectionReason, reason, "REJECTION_REASON_"))


def _draft(event: Any) -> DraftFact:
    return DraftFact(event.specialist, event.generation, event.adapter_digest, event.answer_digest)


def _submissions(connections: Connections, external_id: str) -> list[FoundSubmission]:
    request = ingestion_pb2.GetSubmissionRequest(external_id=external_id)
    try:
        answer = connections.ingestion.GetSubmission(request)
    except NotFound:
        return []
    return [FoundSubmission(item.submission_id, item.document_id, item.rejection_reason) for item in answer.submissions]


def _read_catalogue(connections: Connections, end: Found) -> None:
    registry = connections.registry
    listed = pages(registry.ListDocuments, registry_pb2.ListDocumentsRequest(page_size=1000))
    end.catalogue = [item.anonymized.document_id for item in listed]
    flow = registry.GetFlow(registry_pb2.GetFlowRequest())
    end.counted_passed, end.counted_rejected = flow.anonymized, sum(flow.rejected.values())
    erasures = pages(registry.ListErasures, registry_pb2.ListErasuresRequest())
    end.erasures = [
        FoundErasure(item.erasure_id, tuple(item.document_ids), tuple(item.waiting_for), item.HasField("receipt"))
        for item in erasures
    ]


def _read_training(connections: Connections, end: Found) -> None:
    runs = pages(connections.training.ListRuns, training_pb2.ListRunsRequest())
    end.runs = [
        FoundRun(
            run.run_id,
            " ".join((run.dataset_digest, run.recipe_digest, run.parent_digest, run.preference_dataset_digest)),
            run.state > training_pb2.RUN_STATE_RUNNING,
            run.adapter_digest,
            run.reason,
        )
        for run in runs
    ]
    adapters = list(list_adapters(connections.registry))
    end.adapters = [item.adapter.digest for item in adapters]
    end.not_evaluated = [
        item.adapter.digest
        for item in adapters
        if item.adapter.kind == models_pb2.ADAPTER_KIND_POLICY and not _is_evaluated(connections, item)
    ]


def _is_evaluated(connections: Connections, item: registry_pb2.CatalogueAdapter) -> bool:
    """True if the gate has decided, the evaluation ended with a reason, or the adapter may not serve any more."""
    if item.state not in (registry_pb2.ADAPTER_STATE_EVALUATING, registry_pb2.ADAPTER_STATE_UNSPECIFIED):
        return True
    request = evaluation_pb2.GetEvaluationRequest(adapter_digest=item.adapter.digest)
    try:
        answer = connections.evaluation.GetEvaluation(request)
    except NotFound:
        return False
    return answer.state == evaluation_pb2.EVALUATION_STATE_FAILED and bool(answer.reason)


def _is_traced(connections: Connections, draft_id: str) -> bool:
    request = registry_pb2.TraceRequest(draft_id=draft_id, draft_only=True)
    try:
        return connections.registry.Trace(request).draft.draft_id == draft_id
    except NotFound:
        return False


def _places(running: stack.Stack) -> Iterator[tuple[str, str]]:
    layout = running.layout
    plan = StackPlan(layout, running.snapshot().ports, secrets.ensure(layout), own_stores=load_own_stores(layout))
    yield from buckets(plan)
    yield from databases(plan)


def leave_out_forgotten(settings: KafkaSettings, history: History) -> int:
    """Leave out what an embedded broker forgot of the records that it had acknowledged. Returns their number.

    A document is left out altogether if that concerns its erasure.
    """
    kept: dict[str, list[bool]] = defaultdict(list)
    for _, record in read_topics(settings, [SUBMITTED]):
        kept[record.key.decode()].append(record.value is not None)
    forgotten = 0
    for name, document in list(history.documents.items()):
        contents, tombstones = kept[name].count(True), kept[name].count(False)
        missing = max(0, document.acknowledged - contents)
        document.acknowledged -= missing
        if document.withdrawn and (missing or not tombstones):
            del history.documents[name]
        forgotten += missing + (document.withdrawn and not tombstones)
    return forgotten
