"""The registry service in this process, with answers that tests set."""

from typing import Any

from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2, registry_pb2_grpc
from tailor.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    Unavailable,
)
from tests.evaluations import make_definitions, make_estimate, make_evaluated, make_figures
from tests.fakes.serving import ADAPTER, DATASET, REFUSED_ADAPTER, refuse


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
        self.served = ADAPTER
        self.retired = False  # whether its adapters are
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
        self.evaluated = models_pb2.AdapterEvaluated(rows=16)

    def _adapter(self, digest: str, decision: Any, reasons: list[str]) -> registry_pb2.CatalogueAdapter:
        adapter = models_pb2.AdapterTrained(digest=digest, specialist="engagement-reports", dataset_digest=DATASET)
        item = registry_pb2.CatalogueAdapter(adapter=adapter, decision=decision, reasons=reasons)
        item.serving = decision == registry_pb2.DECISION_PASSED
        item.state = {
            registry_pb2.DECISION_PASSED: registry_pb2.ADAPTER_STATE_SERVING,
            registry_pb2.DECISION_REFUSED: registry_pb2.ADAPTER_STATE_REFUSED,
        }.get(decision, registry_pb2.ADAPTER_STATE_EVALUATING)
        if self.retired:
            item.state = registry_pb2.ADAPTER_STATE_RETIRED
        if item.state == registry_pb2.ADAPTER_STATE_REFUSED:
            item.advice = (
                f"`tailor specialist update engagement-reports.toml`, then `tailor adapter evaluate {digest[:12]}`"
            )
        if decision != registry_pb2.DECISION_UNSPECIFIED:
            item.evaluation.CopyFrom(self.evaluated)
        return item

    def GetSpecialist(self, request: Any, context: Any) -> Any:
        self.tokens.append(dict(context.invocation_metadata())["authorization"])
        if self.down:
            refuse(context, Unavailable(Reason.DATABASE_UNAVAILABLE, "The database does not answer."))
        if request.name != self.specialist.name:
            refuse(context, NotFound(Reason.UNKNOWN_SPECIALIST, f"There is no specialist {request.name}."))
        decision = models_pb2.SpecialistServing(
            specialist=request.name, generation=self.generation, adapter_digest=self.served
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
            document_id="doc_1",
            kind=common_pb2.KIND_DOCUMENT,
            char_count=2**33,
            findings={"PERSON": 7},
            removed={"navigation": 1204, "running_lines": 88},
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
        conditions = ["to pass, log_likelihood must gain more than about 0.100 over base"]
        return registry_pb2.PlanEvaluationResponse(
            metric="log_likelihood", rows=20, sentence=sentence, conditions=conditions
        )

    def GetDataset(self, request: Any, context: Any) -> Any:
        if not DATASET.startswith(request.digest):
            refuse(context, NotFound(Reason.UNKNOWN_DATASET, f"No dataset's digest begins with {request.digest}."))
        count = registry_pb2.SkippedCount(documents=2, characters=1400)
        return registry_pb2.GetDatasetResponse(
            dataset=models_pb2.DatasetBuilt(digest=DATASET, documents=40),
            skipped={"no_words": count},
            train_tokens=81_000,
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
                costs=[models_pb2.ModelCost(model="candidate", answers=16, cut_answers=3)],
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
