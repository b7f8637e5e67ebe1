"""The topics that the registry reads, and the handler that each event goes to. Decodes and translates; decides nothing."""

from collections.abc import Collection, Mapping

from services.registry import wire
from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.sql import Begin
from services.registry.domain import CataloguedDataset, Draft, Fact, FactKind
from services.registry.handlers import canaries, erasures, facts, outcomes, promotions
from services.registry.outcome_domain import DeliverableText
from services.registry.ports import RequestEvaluation, Sign
from tailor import codec
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.events.consumer import Handler
from tailor.events.envelope import Event, decode
from tailor.events.erased import ERASED
from tailor.events.topics import load_topics
from tailor.wire import to_datetime, to_ref


class Consumers:
    """One method per topic."""

    def __init__(
        self,
        begin: Begin,
        datasets: StoredDatasetDocuments,
        texts: StoredComparedTexts,
        request_evaluation: RequestEvaluation,
        sign: Sign,
        *,
        awaits: Collection[str] = (),
    ) -> None:
        """`awaits` names the services that confirm what they forgot."""
        self._awaits = awaits
        self._begin = begin
        self._datasets = datasets
        self._texts = texts
        self._request_evaluation = request_evaluation
        self._sign = sign
        self._asked = frozenset(load_topics()[ERASED].consumers)

    def topics(self) -> Mapping[str, Handler]:
        """The handler of each topic."""
        return {
            "document.ingested.v1": self.document_ingested,
            "document.anonymized.v1": self.document_anonymized,
            "document.rejected.v1": self.document_rejected,
            "document.forgotten.v1": self.document_forgotten,
            "dataset.built.v1": self.dataset_built,
            "run.progressed.v1": self.run_progressed,
            "run.failed.v1": self.run_failed,
            "adapter.trained.v1": self.adapter_trained,
            "adapter.evaluated.v1": self.adapter_evaluated,
            "adapter.served.v1": self.adapter_served,
            "replica.seen.v1": self.replica_seen,
            "draft.created.v1": self.draft_created,
            "event.dead_lettered.v1": self.event_dead_lettered,
        }

    def document_ingested(self, event: Event) -> None:
        facts.record_document_state(self._begin, wire.ingested_state(decode(event, documents_pb2.DocumentIngested)))

    def document_anonymized(self, event: Event) -> None:
        message = decode(event, documents_pb2.DocumentAnonymized)
        facts.record_document_state(self._begin, wire.anonymized_state(message), self._awaits)
        if message.draft_id:
            outcomes.record_deliverable(self._begin, self._texts, codec.decode(DeliverableText, message))

    def document_rejected(self, event: Event) -> None:
        state = wire.rejected_state(decode(event, documents_pb2.DocumentRejected))
        facts.record_document_state(self._begin, state, self._awaits)

    def document_forgotten(self, event: Event) -> None:
        answer = wire.to_answer(decode(event, documents_pb2.DocumentForgotten))
        erasures.record_answer(self._begin, self._sign, self._asked, answer)

    def dataset_built(self, event: Event) -> None:
        message = decode(event, models_pb2.DatasetBuilt)
        fact_id = f"{message.digest}/{message.specialist}"
        fact = Fact(FactKind.DATASET, fact_id, message.specialist, event.value or b"")
        dataset = CataloguedDataset(
            digest=message.digest,
            manifest=to_ref(message.manifest),
            create_time=to_datetime(message.create_time),
            draft_adapters=tuple(message.draft_adapter_digests),
        )
        facts.record_dataset(self._begin, self._datasets, fact, dataset)

    def run_progressed(self, event: Event) -> None:
        message = decode(event, models_pb2.RunProgressed)
        # The newest report of each month: the ledger subtracts what a run had cost before.
        month = f"{to_datetime(message.create_time):%Y-%m}"
        self._record(FactKind.RUN, f"{message.run_id}/{month}", message.specialist, event)

    def run_failed(self, event: Event) -> None:
        message = decode(event, models_pb2.RunFailed)
        # A run can be resumed, and fail again.
        fact_id = f"{message.run_id}/{message.create_time.ToMilliseconds()}/failed"
        self._record(FactKind.RUN, fact_id, message.specialist, event)

    def adapter_trained(self, event: Event) -> None:
        message = decode(event, models_pb2.AdapterTrained)
        facts.record_adapter(self._begin, wire.to_adapter(message), event.value or b"")

    def adapter_evaluated(self, event: Event) -> None:
        evaluation = wire.to_evaluation(decode(event, models_pb2.AdapterEvaluated))
        promotions.record_evaluation(self._begin, self._request_evaluation, evaluation)

    def adapter_served(self, event: Event) -> None:
        message = decode(event, models_pb2.AdapterServed)
        fact_id = f"{message.specialist}/{message.generation}/{message.replica}"
        self._record(FactKind.SERVED, fact_id, message.specialist, event)
        if not message.serving:
            reason = f"{message.replica} refuses it: {message.reason}"
            canaries.withdraw_refused(self._begin, message.specialist, message.generation, reason)

    def replica_seen(self, event: Event) -> None:
        facts.record_replica(self._begin, wire.to_replica(decode(event, models_pb2.ReplicaSeen)))

    def draft_created(self, event: Event) -> None:
        message = decode(event, drafts_pb2.DraftCreated)
        facts.record_draft(self._begin, codec.decode(Draft, message), event.value or b"", wire.to_call(message))
        outcomes.measure_waiting(self._begin, self._texts, message.draft_id)

    def event_dead_lettered(self, event: Event) -> None:
        facts.record_dead_letter(self._begin, event.event_id, decode(event, drafts_pb2.EventDeadLettered).topic)

    def _record(self, kind: FactKind, fact_id: str, specialist: str, event: Event) -> None:
        facts.record_fact(self._begin, Fact(kind, fact_id, specialist, event.value or b""))
