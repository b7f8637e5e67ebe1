"""Fakes of all services as real gRPC servers in this process, and a fake producer."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_status import rpc_status

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2, operations_pb2, operations_pb2_grpc
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tailor.api.registry.v1 import audit_pb2, registry_pb2, registry_pb2_grpc
from tailor.api.synthetic.v1 import (
    imports_pb2,
    imports_pb2_grpc,
    synthesis_pb2,
    synthesis_pb2_grpc,
    synthetic_pb2,
    synthetic_pb2_grpc,
)
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.cli.records import Record
from tailor.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    TailorError,
    Unavailable,
)
from tailor.rpc.status import to_status
from tests.evaluations import make_definitions, make_estimate, make_evaluated, make_figures

ADAPTER = "ab" * 32
REFUSED_ADAPTER = "abababaf" * 8
DATASET = "cd" * 32


def refuse(context: grpc.ServicerContext, error: TailorError) -> Any:
    """End the call with an error, as a real service does."""
    context.abort_with_status(rpc_status.to_status(to_status(error)))


@contextmanager
def serving(add: Callable[[Any, grpc.Server], None], servicer: Any) -> Iterator[str]:
    """Run a server on a free port, and yield its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


class FakeRegistry(registry_pb2_grpc.RegistryServiceServicer):
    """Has one specialist, two adapters, one dataset and one draft."""

    def __init__(self) -> None:
        self.specialist = models_pb2.SpecialistChanged(
            name="engagement-reports", revision=1, base="tiny", recipe="lora"
        )
        self.generation = 3
        self.unreached = 0  # the number of answers that still say that the replica does not serve
        self.canaries: list[registry_pb2.StartCanaryRequest] = []
        self.canary: registry_pb2.Canary | None = None
        self.round: drafts_pb2.RoundProgress | None = None
        self.refusal = ""  # why the replica refuses to serve
        self.role_is_admitted = True
        self.keys: list[registry_pb2.Key] = []
        self.tokens: list[str] = []
        self.down = False
        self.undecided = 0  # the number of answers that still say that the gate has not decided
        self.other_definition = False  # whether the specialist's definition differs from any that is created
        self.erasures: list[registry_pb2.EraseRequest] = []
        self.lifted: list[str] = []
        self.receipt = ""
        self.audit = audit_pb2.GetAuditResponse()
        self.reasons: list[str] = []  # of operators' decisions
        self.waiting: list[registry_pb2.CatalogueAdapter] = []
        self.decisions: list[registry_pb2.OperatorDecision] = []
        self.entries: list[registry_pb2.LeaderboardEntry] = []
        self.pins: list[tuple[str, bool]] = []

    def _adapter(self, digest: str, decision: Any, reasons: list[str]) -> registry_pb2.CatalogueAdapter:
        adapter = models_pb2.AdapterTrained(digest=digest, specialist="engagement-reports", dataset_digest=DATASET)
        item = registry_pb2.CatalogueAdapter(adapter=adapter, decision=decision, reasons=reasons)
        item.serving = decision == registry_pb2.DECISION_PASSED
        item.state = {
            registry_pb2.DECISION_PASSED: registry_pb2.ADAPTER_STATE_SERVING,
            registry_pb2.DECISION_REFUSED: registry_pb2.ADAPTER_STATE_REFUSED,
        }.get(decision, registry_pb2.ADAPTER_STATE_EVALUATING)
        if item.state == registry_pb2.ADAPTER_STATE_REFUSED:
            item.advice = f"`tailor specialist update engagement-reports.toml`, then `tailor evaluate {digest[:12]}`"
        if decision != registry_pb2.DECISION_UNSPECIFIED:
            item.evaluation.rows = 16
        return item

    def GetSpecialist(self, request: Any, context: Any) -> Any:
        self.tokens.append(dict(context.invocation_metadata())["authorization"])
        if self.down:
            refuse(context, Unavailable(Reason.DATABASE_UNAVAILABLE, "The database does not answer."))
        if request.name != self.specialist.name:
            refuse(context, NotFound(Reason.UNKNOWN_SPECIALIST, f"There is no specialist {request.name}."))
        decision = models_pb2.SpecialistServing(
            specialist=request.name, generation=self.generation, adapter_digest=ADAPTER
        )
        state = registry_pb2.ReplicaState(replica="inference-0", serving=not self.unreached, reason=self.refusal)
        self.unreached = max(0, self.unreached - 1)
        serving = registry_pb2.Serving(decision=decision, finished=state.serving, rollout=[state])
        return registry_pb2.GetSpecialistResponse(
            specialist=self.specialist, serving=serving, canary=self.canary, round=self.round
        )

    def UpdateSpecialist(self, request: Any, context: Any) -> Any:
        if request.specialist.revision != self.specialist.revision:
            text = f"Current revision is {self.specialist.revision}. Reload and retry."
            refuse(context, Aborted(Reason.REVISION_MOVED, text))
        change = registry_pb2.FieldChange(
            field="gate.min_rows",
            before=str(self.specialist.gate.min_rows),
            after=str(request.specialist.gate.min_rows),
        )
        changes = [change] if change.before != change.after else []
        if not request.validate_only:
            self.specialist.CopyFrom(request.specialist)
            self.specialist.revision += 1
        return registry_pb2.UpdateSpecialistResponse(specialist=self.specialist, changes=changes)

    def DeleteSpecialist(self, request: Any, context: Any) -> Any:
        if request.name != self.specialist.name:
            refuse(context, NotFound(Reason.UNKNOWN_SPECIALIST, f"There is no specialist {request.name}."))
        deleted, self.specialist.deleted = not self.specialist.deleted, True
        self.reasons.append(request.reason)
        return registry_pb2.DeleteSpecialistResponse(specialist=self.specialist, deleted=deleted)

    def ListApprovals(self, request: Any, context: Any) -> Any:
        return registry_pb2.ListApprovalsResponse(adapters=self.waiting)

    def ApproveAdapter(self, request: Any, context: Any) -> Any:
        self.reasons.append(request.reason)
        serving = models_pb2.SpecialistServing(
            specialist=self.specialist.name, generation=self.generation + 1, adapter_digest=request.adapter_digest
        )
        return registry_pb2.ApproveAdapterResponse(serving=serving)

    def DeclineAdapter(self, request: Any, context: Any) -> Any:
        self.reasons.append(request.reason)
        decision = registry_pb2.OperatorDecision(adapter_digest=request.adapter_digest, reason=request.reason)
        return registry_pb2.DeclineAdapterResponse(decision=decision)

    def GetLeaderboard(self, request: Any, context: Any) -> Any:
        return registry_pb2.GetLeaderboardResponse(metric="rougeL", entries=self.entries)

    def PinEntry(self, request: Any, context: Any) -> Any:
        self.pins.append((request.entry, request.pinned))
        return registry_pb2.PinEntryResponse()

    def ListDecisions(self, request: Any, context: Any) -> Any:
        return registry_pb2.ListDecisionsResponse(decisions=self.decisions)

    def ListSpecialists(self, request: Any, context: Any) -> Any:
        names = ["a", "b", "c"]
        at = int(request.page_token or 0)
        item = registry_pb2.GetSpecialistResponse(specialist=models_pb2.SpecialistChanged(name=names[at]))
        following = str(at + 1) if at + 1 < len(names) else ""
        return registry_pb2.ListSpecialistsResponse(specialists=[item], next_page_token=following)

    def CreateSpecialist(self, request: Any, context: Any) -> Any:
        if self.other_definition:
            refuse(context, AlreadyExists(Reason.SPECIALIST_EXISTS, "The name has another definition."))
        if not request.specialist.base:
            violations = {"base": "must name a base"}
            refuse(
                context,
                InvalidArgument(Reason.INVALID_SPECIALIST, "The definition is invalid.", field_violations=violations),
            )
        return registry_pb2.CreateSpecialistResponse(specialist=request.specialist, created=True)

    def GetFlow(self, request: Any, context: Any) -> Any:
        return registry_pb2.GetFlowResponse(ingested=3, anonymized=2, rejected={"EMPTY": 1}, findings={"PERSON": 7})

    def ListDocuments(self, request: Any, context: Any) -> Any:
        if request.document_id not in ("", "doc_1"):
            return registry_pb2.ListDocumentsResponse()
        passed = documents_pb2.DocumentAnonymized(
            document_id="doc_1", kind=common_pb2.KIND_DOCUMENT, char_count=2**33, findings={"PERSON": 7}
        )
        stopped = documents_pb2.DocumentRejected(
            document_id="doc_2", reason=documents_pb2.REJECTION_REASON_EMPTY, hint="It has no bytes."
        )
        items = [registry_pb2.CatalogueDocument(anonymized=passed), registry_pb2.CatalogueDocument(rejected=stopped)]
        return registry_pb2.ListDocumentsResponse(documents=items[:1] if request.document_id else items)

    def GetAudit(self, request: Any, context: Any) -> Any:
        if request.specialist not in ("", self.specialist.name):
            refuse(context, NotFound(Reason.UNKNOWN_SPECIALIST, "There is no such specialist."))
        return self.audit

    def ListDatasets(self, request: Any, context: Any) -> Any:
        built = models_pb2.DatasetBuilt(
            digest=DATASET, specialist="engagement-reports", train_rows=200, held_out_rows=20, documents=40
        )
        built.figures.coverage, built.figures.grounded = 0.934, 0.99
        return registry_pb2.ListDatasetsResponse(datasets=[built])

    def _adapters(self) -> list[registry_pb2.CatalogueAdapter]:
        decision = registry_pb2.DECISION_UNSPECIFIED if self.undecided else registry_pb2.DECISION_PASSED
        self.undecided = max(0, self.undecided - 1)
        return [
            self._adapter(ADAPTER, decision, []),
            self._adapter(
                REFUSED_ADAPTER,
                registry_pb2.DECISION_REFUSED,
                ["rougeL gains +0.001 (95 %: -0.010 to +0.012, 16 rows) over base"],
            ),
        ]

    def ListAdapters(self, request: Any, context: Any) -> Any:
        return registry_pb2.ListAdaptersResponse(adapters=self._adapters())

    def GetAdapter(self, request: Any, context: Any) -> Any:
        matches = [item for item in self._adapters() if item.adapter.digest.startswith(request.digest)]
        if not matches:
            refuse(context, NotFound(Reason.UNKNOWN_ADAPTER, f"No adapter's digest begins with {request.digest}."))
        if len(matches) > 1:
            refuse(context, InvalidArgument(Reason.AMBIGUOUS_ADAPTER, "Several adapters begin with these digits."))
        return registry_pb2.GetAdapterResponse(adapter=matches[0])

    def PlanEvaluation(self, request: Any, context: Any) -> Any:
        sentence = f"with 20 of 20 held-out rows of {len(request.dataset_digests)} datasets a difference below 0.05 cannot be seen"
        return registry_pb2.PlanEvaluationResponse(metric="log_likelihood", rows=20, sentence=sentence)

    def GetDataset(self, request: Any, context: Any) -> Any:
        if not DATASET.startswith(request.digest):
            refuse(context, NotFound(Reason.UNKNOWN_DATASET, f"No dataset's digest begins with {request.digest}."))
        count = registry_pb2.LeftOutCount(documents=2, characters=1400)
        return registry_pb2.GetDatasetResponse(
            dataset=models_pb2.DatasetBuilt(digest=DATASET, documents=40),
            left_out={"no_words": count},
            train_tokens=81_000,
            quiz=registry_pb2.QuizCounts(documents=30, questions=88, beyond_limit=5, without_questions=1),
            imports=[registry_pb2.ImportCount(name="chat", licence="CC-BY-4.0", share_percent=20, rows=1250)],
            languages={"": registry_pb2.LanguageCount(rows=31, documents=4)},
            teacher_tokens=5_200,
        )

    def Promote(self, request: Any, context: Any) -> Any:
        if request.expected_generation != self.generation:
            refuse(context, Aborted(Reason.GENERATION_MOVED, "The generation has changed."))
        self.generation += 1
        if request.override:
            self.reasons.append(request.reason)
        serving = models_pb2.SpecialistServing(
            specialist=request.specialist,
            generation=self.generation,
            adapter_digest=request.adapter_digest,
            overridden=request.override,
        )
        return registry_pb2.PromoteResponse(serving=serving)

    def Rollback(self, request: Any, context: Any) -> Any:
        refuse(context, FailedPrecondition(Reason.NOTHING_TO_ROLL_BACK, "No adapter served before."))

    def StartCanary(self, request: Any, context: Any) -> Any:
        self.canaries.append(request)
        self.generation += 1
        serving = models_pb2.SpecialistServing(specialist=request.specialist, generation=self.generation)
        serving.canary.adapter_digest, serving.canary.percent = request.adapter_digest, request.policy.percent or 10
        return registry_pb2.StartCanaryResponse(serving=serving)

    def StopCanary(self, request: Any, context: Any) -> Any:
        if not self.canaries:
            refuse(context, FailedPrecondition(Reason.NO_CANARY, "No canary runs."))
        serving = models_pb2.SpecialistServing(
            specialist=request.specialist, generation=request.expected_generation + 1
        )
        return registry_pb2.StopCanaryResponse(serving=serving)

    def Trace(self, request: Any, context: Any) -> Any:
        draft = drafts_pb2.DraftCreated(draft_id=request.draft_id, specialist="engagement-reports", generation=3)
        document = documents_pb2.DocumentAnonymized(document_id="doc_1")
        return registry_pb2.TraceResponse(
            draft=draft,
            adapter=models_pb2.AdapterTrained(
                digest=ADAPTER,
                run_id="run_1",
                reward_adapter_digest="e" * 64,
                preference_dataset_digest="f" * 64,
                round=2,
            ),
            dataset=models_pb2.DatasetBuilt(digest=DATASET),
            preference_dataset=models_pb2.DatasetBuilt(digest="f" * 64, train_rows=70, judgements=80),
            documents=[document],
            evaluation=make_evaluated(
                ADAPTER,
                "engagement-reports",
                make_figures("rougeL", base=0.2, candidate=0.3),
                rows_too_long=2,
                definitions=make_definitions(1, 4),
                goals=[
                    models_pb2.Goal(
                        metric="rougeL",
                        goal=0.28,
                        estimate=make_estimate(0.3),
                        state=models_pb2.GOAL_STATE_REACHED,
                    )
                ],
            ),
        )

    def Erase(self, request: Any, context: Any) -> Any:
        if not self.role_is_admitted:
            refuse(context, PermissionDenied(Reason.ROLE_NOT_ADMITTED, "Erase is not for this caller."))
        self.erasures.append(request)
        return registry_pb2.EraseResponse(erasure=self._erasure(request.document_ids, request.reason))

    def _erasure(self, document_ids: Any, reason: str) -> registry_pb2.Erasure:
        erasure = registry_pb2.Erasure(erasure_id="ers_1", document_ids=document_ids, reason=reason)
        if self.receipt:
            erasure.receipt.body, erasure.receipt.signature = self.receipt, b"\x01\x02"
        else:
            erasure.waiting_for.extend(["inference", "training"])
        return erasure

    def GetErasure(self, request: Any, context: Any) -> Any:
        return registry_pb2.GetErasureResponse(erasure=self._erasure(["doc_1", "doc_2"], "court-order"))

    def ListErasures(self, request: Any, context: Any) -> Any:
        return registry_pb2.ListErasuresResponse(erasures=[self._erasure(["doc_1"], "tombstone")])

    def LiftErasure(self, request: Any, context: Any) -> Any:
        self.lifted.append(request.document_id)
        return registry_pb2.LiftErasureResponse(erasure=self._erasure([request.document_id], "court-order"))

    def CreateKey(self, request: Any, context: Any) -> Any:
        key = registry_pb2.Key(
            key_id="key_1",
            name=request.name,
            role=request.role,
            specialists=request.specialists,
            expire_time=request.expire_time if request.HasField("expire_time") else None,
        )
        self.keys.append(key)
        return registry_pb2.CreateKeyResponse(key=key, secret="tlr_created")

    def ListKeys(self, request: Any, context: Any) -> Any:
        return registry_pb2.ListKeysResponse(keys=self.keys)

    def RevokeKey(self, request: Any, context: Any) -> Any:
        return registry_pb2.RevokeKeyResponse(key=registry_pb2.Key(key_id=request.key_id, revoked=True))


class FakeAnonymization(anonymization_pb2_grpc.AnonymizationServiceServicer):
    """Has one person, Sarah Jenkins, in two documents. Refuses policies with `hide`."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.resolved: list[bool] = []
        self.lifted: list[str] = []

    def PreviewAnonymization(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        if "hide" in request.policy:
            violations = {"types.PERSON": "must be 'surrogate', 'mask', 'generalise' or 'keep'"}
            refuse(
                context, InvalidArgument(Reason.INVALID_POLICY, "The policy is invalid.", field_violations=violations)
            )
        start = request.text.index("Sarah Jenkins")
        change = anonymization_pb2.Change(
            start=start,
            end=start + 13,
            entity_type="PERSON",
            action=anonymization_pb2.ACTION_SURROGATE,
            replacement="Helen Ward",
        )
        after = request.text.replace("Sarah Jenkins", "Helen Ward")
        return anonymization_pb2.PreviewAnonymizationResponse(
            text=after, findings={"PERSON": 1}, changes=[change], policy_digest="ab" * 32
        )

    def Reidentify(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return anonymization_pb2.ReidentifyResponse(value="Sarah Jenkins")

    def ResolveSubject(self, request: Any, context: Any) -> Any:
        self.resolved.append(request.dry_run)
        document_ids = ["doc_1", "doc_2", "txt_1"] if request.subject == "Sarah Jenkins" else []
        return anonymization_pb2.ResolveSubjectResponse(document_ids=document_ids, vault_entries=3)

    def LiftSubject(self, request: Any, context: Any) -> Any:
        self.lifted.append(request.subject)
        return anonymization_pb2.LiftSubjectResponse()


PRICE = training_pb2.Price(currency="EUR", total=72.0, compute=2.0, teacher=10.0, annotation=60.0)
PLAN = training_pb2.RunPlan(
    rows=200,
    tokens=40_000,
    steps=80,
    memory_bytes=3 * 2**30,
    device_memory_bytes=4 * 2**30,
    device="2 CPU cores",
    devices=1,
    seconds=120.0,
    seconds_from="measured",
    price=PRICE,
    fits=True,
)
REPORT = training_pb2.RunReport(rows=200, tokens=40_000, steps=80, seconds=100.0, price=PRICE, seconds_error=0.2)


UNFIT_PLAN = training_pb2.RunPlan(
    refusal="It needs 9 GiB of 4 GiB.", nearest_recipe="qlora", device_memory_bytes=4 * 2**30
)


class FakeTraining(training_pb2_grpc.TrainingServiceServicer):
    """Plays one run. `ends` is its final state; `breaks` is the number of calls that fail on the way."""

    def __init__(self) -> None:
        self.ends = training_pb2.RUN_STATE_SUCCEEDED
        self.breaks = 0
        self.created: list[training_pb2.CreateRunRequest] = []
        self.recipes = ["lora"]
        self.polls = 0
        self.planned: list[training_pb2.PlanRunRequest] = []

    def PlanRun(self, request: Any, context: Any) -> Any:
        self.planned.append(request)
        return training_pb2.PlanRunResponse(plan=UNFIT_PLAN if request.recipe == "full" else PLAN)

    def _run(self, state: Any, step: int = 0) -> training_pb2.Run:
        run = training_pb2.Run(run_id="run_1", specialist="engagement-reports", dataset_digest=DATASET, state=state)
        if step:
            progress = models_pb2.RunProgressed(
                phase="training", step=step, total_steps=4, loss=2.5, tokens_per_second=200
            )
            run.progress.CopyFrom(progress)
        for recipe in self.recipes:
            run.stages.add(recipe=recipe, method="sft", dataset_digest=DATASET)
        run.plan.CopyFrom(PLAN)
        if state == training_pb2.RUN_STATE_SUCCEEDED:
            run.adapter_digest = ADAPTER
            run.report.CopyFrom(REPORT)
        if state == training_pb2.RUN_STATE_FAILED:
            run.reason, run.message = "INVALID_ROW", "A row has no answer."
        return run

    def _break(self, context: Any) -> None:
        if self.breaks:
            self.breaks -= 1
            refuse(context, Unavailable(Reason.STOPPED, "The service stops."))

    def GetRun(self, request: Any, context: Any) -> Any:
        self._break(context)
        self.polls += 1
        if self.polls > 2:
            return training_pb2.GetRunResponse(run=self._run(self.ends))
        return training_pb2.GetRunResponse(run=self._run(training_pb2.RUN_STATE_RUNNING, 1 if self.polls == 1 else 4))

    def ListRuns(self, request: Any, context: Any) -> Any:
        return training_pb2.ListRunsResponse(runs=[self._run(training_pb2.RUN_STATE_RUNNING, 2)])

    def CancelRun(self, request: Any, context: Any) -> Any:
        return training_pb2.CancelRunResponse(run=self._run(training_pb2.RUN_STATE_CANCELLED))

    def CreateRun(self, request: Any, context: Any) -> Any:
        self.created.append(request)
        return training_pb2.CreateRunResponse(run=self._run(training_pb2.RUN_STATE_QUEUED))

    def WatchRun(self, request: Any, context: Any) -> Any:
        yield training_pb2.WatchRunResponse(run=self._run(training_pb2.RUN_STATE_RUNNING, 1))
        line = training_pb2.LogLine(level="info", message="checkpoint stored step=2", epoch=1)
        yield training_pb2.WatchRunResponse(run=self._run(training_pb2.RUN_STATE_RUNNING, 1), log_lines=[line])
        self._break(context)
        yield training_pb2.WatchRunResponse(run=self._run(training_pb2.RUN_STATE_RUNNING, 4))
        yield training_pb2.WatchRunResponse(run=self._run(self.ends))

    def AddBase(self, request: Any, context: Any) -> Any:
        yield training_pb2.AddBaseResponse(step="unpacking the wheel")
        yield training_pb2.AddBaseResponse(
            base=training_pb2.Base(name=request.name, licence="Apache-2.0", size_bytes=500)
        )

    def ListBases(self, request: Any, context: Any) -> Any:
        return training_pb2.ListBasesResponse(bases=[training_pb2.Base(name="tiny", parameters=10**6)])


class FakeImports(imports_pb2_grpc.ImportServiceServicer):
    """Keeps the requests. The first `failures` calls end as if the barrier did not answer."""

    def __init__(self) -> None:
        self.headers: list[imports_pb2.ImportHeader] = []
        self.chunks: list[imports_pb2.ImportChunk] = []
        self.forgotten: list[str] = []
        self.failures = 0

    def _import(self, **values: Any) -> imports_pb2.DatasetImport:
        known: dict[str, Any] = {
            "name": "chat",
            "licence": "CC-BY-4.0",
            "share_percent": 10,
            "rows": 1200,
            "sha256": "ef" * 32,
        }
        return imports_pb2.DatasetImport(**(known | values), rejected={"too_long": 2})

    def ImportDataset(self, request_iterator: Any, context: Any) -> Any:
        self.headers.append(next(request_iterator).header)
        self.chunks = [request.chunk for request in request_iterator]
        if self.failures:
            self.failures -= 1
            refuse(context, Unavailable(Reason.UNAVAILABLE, "anonymization does not answer."))
        item = self._import(name=self.headers[-1].name, rows=sum(len(chunk.rows) for chunk in self.chunks))
        return imports_pb2.ImportDatasetResponse(**{"import": item}, created=True)

    def ListImports(self, request: Any, context: Any) -> Any:
        return imports_pb2.ListImportsResponse(imports=[self._import(), self._import(name="half", sha256="")])

    def ForgetImport(self, request: Any, context: Any) -> Any:
        self.forgotten.append(request.name)
        return imports_pb2.ForgetImportResponse(**{"import": self._import(name=request.name)})


class FakeSynthetic(synthetic_pb2_grpc.SyntheticServiceServicer):
    """Always builds the same dataset. Compares a hundred documents per call."""

    def __init__(self) -> None:
        self.created = True
        self.left_out: list[synthetic_pb2.LeftOut] = []
        self.listed: list[synthetic_pb2.ListRowsRequest] = []
        self.imports = FakeImports()
        self.documents = 0
        self.compared = 0
        self.down = False

    def CountNearDuplicates(self, request: Any, context: Any) -> Any:
        if self.down:
            refuse(context, Unavailable(Reason.DATABASE_UNAVAILABLE, "The database does not answer."))
        self.compared = min(self.documents, self.compared + 100)
        return synthetic_pb2.CountNearDuplicatesResponse(
            documents=self.documents, compared=self.compared, near_duplicates=7, groups=3, threshold=0.8
        )

    def ListRows(self, request: Any, context: Any) -> Any:
        """One row per page, of three."""
        self.listed.append(type(request).FromString(request.SerializeToString()))
        at = int(request.page_token or 0)
        row = synthetic_pb2.Row(
            row_id=f"row_{at}",
            task="answer",
            document_ids=[f"doc_{at}"],
            split=synthetic_pb2.SPLIT_TRAIN,
            messages=[
                synthetic_pb2.RowMessage(role="user", content="Where is [it] written?"),
                synthetic_pb2.RowMessage(role="assistant", content=f"In section {at}."),
            ],
            language="en",
            tokens=1234,
            grounding="yes",
            made_by="structure",
        )
        return synthetic_pb2.ListRowsResponse(
            rows=[row],
            next_page_token=str(at + 1) if at < 2 else "",
            dataset_digest=DATASET,
            specialist=request.specialist,
            scanned_rows=1000,
        )

    def BuildDataset(self, request: Any, context: Any) -> Any:
        if request.kind == models_pb2.DATASET_KIND_PREFERENCE:
            pairs = synthetic_pb2.PairCounts(judgements=12, pairs=30, tied=2)
            dataset = models_pb2.DatasetBuilt(digest=DATASET, kind=request.kind, train_rows=26, held_out_rows=2)
            return synthetic_pb2.BuildDatasetResponse(dataset=dataset, created=True, pairs=pairs)
        dataset = models_pb2.DatasetBuilt(
            digest=DATASET,
            specialist=request.specialist,
            train_rows=200,
            held_out_rows=20,
            base="tiny",
            programme=[models_pb2.ProgrammeStage(stage="sft", recipe="lora")],
        )
        return synthetic_pb2.BuildDatasetResponse(
            dataset=dataset, created=self.created, near_duplicates=4, left_out=self.left_out
        )


class FakeSynthesis(synthesis_pb2_grpc.SynthesisServiceServicer):
    """Has one synthesis, which `watched` shows step by step."""

    def __init__(self) -> None:
        self.created: list[synthesis_pb2.CreateSynthesisRequest] = []
        self.decisions: list[synthesis_pb2.SampleDecision] = []
        self.listed: list[synthesis_pb2.ListSamplesRequest] = []
        self.commands: list[str] = []
        self.watched: list[synthesis_pb2.Synthesis] = []
        self.synthesis = synthesis_pb2.Synthesis(
            synthesis_id="syn_1",
            spec=synthesis_pb2.SynthesisSpec(specialist="reports", task="risk-assessment", target=300, budget_eur=2.0),
            state=synthesis_pb2.SYNTHESIS_STATE_RUNNING,
            teacher="wise",
            accepted=41,
            refusals=[synthesis_pb2.SynthesisRefusals(reason="near_duplicate", rows=7)],
            use=synthesis_pb2.SynthesisUse(answers=48, tokens=61_000, lost_tokens=500, eur=0.61),
        )

    def CreateSynthesis(self, request: Any, context: Any) -> Any:
        self.created.append(request)
        return synthesis_pb2.CreateSynthesisResponse(synthesis=self.synthesis)

    def GetSynthesis(self, request: Any, context: Any) -> Any:
        if request.synthesis_id != "syn_1":
            refuse(context, NotFound(Reason.UNKNOWN_SYNTHESIS, "There is no such synthesis."))
        return synthesis_pb2.GetSynthesisResponse(synthesis=self.synthesis)

    def ListSyntheses(self, request: Any, context: Any) -> Any:
        return synthesis_pb2.ListSynthesesResponse(syntheses=[self.synthesis])

    def WatchSynthesis(self, request: Any, context: Any) -> Any:
        for synthesis in self.watched:
            yield synthesis_pb2.WatchSynthesisResponse(synthesis=synthesis)

    def CancelSynthesis(self, request: Any, context: Any) -> Any:
        self.commands.append("cancel")
        return synthesis_pb2.CancelSynthesisResponse(synthesis=self.synthesis)

    def ResumeSynthesis(self, request: Any, context: Any) -> Any:
        self.commands.append("resume")
        return synthesis_pb2.ResumeSynthesisResponse(synthesis=self.synthesis)

    def ListSamples(self, request: Any, context: Any) -> Any:
        self.listed.append(request)
        sample = synthesis_pb2.Sample(
            row_id="row_1",
            state=synthesis_pb2.SAMPLE_STATE_PENDING,
            prompt="Assess [the ferry].",
            completion="Low risk.",
            mark=4,
        )
        return synthesis_pb2.ListSamplesResponse(samples=[sample])

    def ReviewSamples(self, request: Any, context: Any) -> Any:
        self.decisions += request.decisions
        return synthesis_pb2.ReviewSamplesResponse(synthesis=self.synthesis)


class FakeEvaluation(evaluation_pb2_grpc.EvaluationServiceServicer):
    """Starts an evaluation, which never ends, and gives one comparison."""

    def __init__(self) -> None:
        self.comparison = evaluation_pb2.CompareEvaluationsResponse()
        self.compared: list[evaluation_pb2.CompareEvaluationsRequest] = []

    def CompareEvaluations(self, request: Any, context: Any) -> Any:
        self.compared.append(request)
        return self.comparison

    def Evaluate(self, request: Any, context: Any) -> Any:
        return evaluation_pb2.EvaluateResponse(evaluation_id=f"evl_{request.adapter_digest[:4]}")

    def GetEvaluation(self, request: Any, context: Any) -> Any:
        state = evaluation_pb2.EVALUATION_STATE_RUNNING
        return evaluation_pb2.GetEvaluationResponse(state=state, rows_done=3, rows_total=8)


class FakeInference(inference_pb2_grpc.InferenceServiceServicer):
    """Answers with the model's name and the prompt. Fails the first `failures` calls. `cancelled` is True after a caller went away."""

    def __init__(self) -> None:
        self.failures = 0
        self.calls = 0
        self.cancelled = False
        self.endless = False
        self.max_messages = 100
        self.asked: list[inference_pb2.GenerateRequest] = []

    def _check(self, request: Any, context: Any) -> inference_pb2.Provenance:
        self.calls += 1
        self.asked.append(request)
        if self.failures:
            self.failures -= 1
            refuse(context, Unavailable(Reason("NO_MODEL"), "No model is ready."))
        if len(getattr(request, "messages", ())) > self.max_messages:
            refuse(context, InvalidArgument(Reason.PROMPT_TOO_LONG, "The prompt leaves no room for an answer."))
        if request.model not in ("base", "engagement-reports"):
            refuse(context, NotFound(Reason.UNKNOWN_SPECIALIST, f"There is no specialist {request.model}."))
        if request.model == "base":
            return inference_pb2.Provenance(base="tiny")
        return inference_pb2.Provenance(specialist=request.model, generation=3, adapter_digest=ADAPTER, base="tiny")

    def Generate(self, request: Any, context: Any) -> Any:
        provenance = self._check(request, context)
        prompt = request.prompt or request.messages[-1].content
        return inference_pb2.GenerateResponse(
            draft_id="drf_1",
            text=f"{request.model}: {prompt}",
            finish_reason="stop",
            usage=inference_pb2.Usage(prompt_tokens=2, completion_tokens=3),
            provenance=provenance,
        )

    def StreamGenerate(self, request: Any, context: Any) -> Any:
        provenance = self._check(request.request, context)
        context.add_callback(self._gone)
        for word in (request.request.model, " says ", request.request.prompt):
            yield inference_pb2.StreamGenerateResponse(draft_id="drf_1", text=word)
        while self.endless and context.is_active():
            yield inference_pb2.StreamGenerateResponse(draft_id="drf_1", text=".")
        yield inference_pb2.StreamGenerateResponse(
            draft_id="drf_1",
            finish_reason="stop",
            usage=inference_pb2.Usage(prompt_tokens=2, completion_tokens=3),
            provenance=provenance,
        )

    def _gone(self) -> None:
        self.cancelled = True

    def GetDraft(self, request: Any, context: Any) -> Any:
        if request.draft_id != "drf_1":
            refuse(context, NotFound(Reason.UNKNOWN_DRAFT, "There is no such draft."))
        response = inference_pb2.GetDraftResponse(
            draft_id="drf_1",
            finish_reason="stop",
            usage=inference_pb2.Usage(prompt_tokens=2, completion_tokens=3),
            provenance=inference_pb2.Provenance(base="tiny"),
            text_state=inference_pb2.TEXT_STATE_KEPT,
            messages=[inference_pb2.Message(role="user", content="hello")],
            answer="base: hello",
        )
        response.create_time.FromSeconds(1_700_000_000)
        return response

    def ListSpecialists(self, request: Any, context: Any) -> Any:
        served = inference_pb2.ServedSpecialist(
            name="engagement-reports",
            provenance=inference_pb2.Provenance(specialist="engagement-reports", generation=3, adapter_digest=ADAPTER),
            context_length=2048,
        )
        return inference_pb2.ListSpecialistsResponse(specialists=[served])


class FakeIngestion(ingestion_pb2_grpc.IngestionServiceServicer):
    """Stores the files that are streamed to it."""

    def __init__(self) -> None:
        self.headers: list[ingestion_pb2.DocumentHeader] = []
        self.files: list[bytes] = []
        self.submissions: dict[str, list[ingestion_pb2.Submission]] = {}

    def SubmitDocument(self, request_iterator: Any, context: Any) -> Any:
        parts = list(request_iterator)
        self.headers.append(parts[0].header)
        self.files.append(b"".join(part.chunk for part in parts[1:]))
        return ingestion_pb2.SubmitDocumentResponse(document_id="doc_9", rejection_reason="DUPLICATE")

    def GetSubmission(self, request: Any, context: Any) -> Any:
        if request.external_id not in self.submissions:
            context.abort(grpc.StatusCode.NOT_FOUND, "Nothing was published under this id.")
        return ingestion_pb2.GetSubmissionResponse(submissions=self.submissions[request.external_id])


class FakeEvents(operations_pb2_grpc.EventServiceServicer):
    """One dead letter and one unsent event. Stores what an operator does about them."""

    def __init__(self) -> None:
        self.replayed: list[operations_pb2.ReplayDeadLetterRequest] = []
        self.skipped: list[operations_pb2.SkipEventRequest] = []
        self.faults: list[operations_pb2.Fault] = []

    def GetEventStatus(self, request: Any, context: Any) -> Any:
        return operations_pb2.GetEventStatusResponse(faults=self.faults)

    def ListDeadLetters(self, request: Any, context: Any) -> Any:
        letter = operations_pb2.DeadLetter(
            topic="dataset.built.v1",
            partition=0,
            offset=7,
            reason="INCOMPLETE_EVENT",
            message="The event lacks kind.",
            state=operations_pb2.DEAD_LETTER_STATE_DEAD,
        )
        unsent = operations_pb2.DeadLetter(
            topic="run.failed.v1",
            partition=-1,
            offset=-1,
            event_id="evt_9",
            reason="EVENT_TOO_LARGE",
            state=operations_pb2.DEAD_LETTER_STATE_UNSENT,
        )
        return operations_pb2.ListDeadLettersResponse(dead_letters=[unsent, letter])

    def ReplayDeadLetter(self, request: Any, context: Any) -> Any:
        self.replayed.append(request)
        return operations_pb2.ReplayDeadLetterResponse()

    def SkipEvent(self, request: Any, context: Any) -> Any:
        self.skipped.append(request)
        return operations_pb2.SkipEventResponse()


class FakeProducer:
    """Stores records. A record counts as acknowledged when its wait was called."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.acknowledged = 0

    def send(self, record: Record) -> Callable[[], None]:
        self.records.append(record)

        def wait() -> None:
            self.acknowledged += 1

        return wait
