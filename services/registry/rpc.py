"""The gRPC methods of the registry: check what the caller may see, translate, and page. Handlers decide; queries read."""

from collections.abc import Collection

import grpc

from services.registry import wire
from services.registry.adapters.sql import Begin
from services.registry.domain import ApiKey, ErasureRequest, FactKind, Justification, KeyTerms, Specialist
from services.registry.first_digits import MAX_MATCHES, complete_draft_id, find_fact
from services.registry.handlers import (
    canaries,
    deletions,
    erasures,
    judgements,
    keys,
    promotions,
    specialists,
)
from services.registry.ports import Anonymize, CheckPipeline
from services.registry.queries import REJECTED_PAGE, Queries
from services.registry.rights import may_manage, visitor_or_caller
from services.registry.rules.overrides import check_reason
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2, registry_pb2_grpc
from tailor.codec import decode, encode, update
from tailor.errors import InvalidArgument, PermissionDenied, Reason
from tailor.events.envelope import derive_id, new_id
from tailor.rpc.auth import current_caller
from tailor.rpc.methods import named_methods
from tailor.values import Labels, Selection
from tailor.wire import enum_name, to_datetime

Context = grpc.ServicerContext

# Roles that may see the documents behind a draft; callers and experts see only digests.
SEES_DOCUMENTS = {"ROLE_ENGINEER", "ROLE_OPERATOR", "ROLE_DATA_PROTECTION"}

TRACED_DOCUMENTS = 100


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Every method of `tailor.api.registry.v1.RegistryService`."""

    def __init__(
        self,
        begin: Begin,
        queries: Queries,
        anonymize: Anonymize,
        awaits: Collection[str],
        *,
        check_pipeline: CheckPipeline,
    ) -> None:
        self._begin = begin
        self._queries = queries
        self._anonymize = anonymize
        self._awaits = awaits
        self._check_pipeline = check_pipeline

    def CreateSpecialist(
        self, request: registry_pb2.CreateSpecialistRequest, context: Context
    ) -> registry_pb2.CreateSpecialistResponse:
        _may_use(request.specialist.name)
        definition = wire.to_specialist(request.specialist)
        specialists.check_pipeline(self._begin, definition, self._check_pipeline)
        specialist, created = specialists.create_specialist(self._begin, definition)
        return registry_pb2.CreateSpecialistResponse(specialist=wire.from_specialist(specialist), created=created)

    def UpdateSpecialist(
        self, request: registry_pb2.UpdateSpecialistRequest, context: Context
    ) -> registry_pb2.UpdateSpecialistResponse:
        _may_use(request.specialist.name)
        definition = wire.to_specialist(request.specialist)
        specialists.check_pipeline(self._begin, definition, self._check_pipeline)
        specialist, changes = specialists.update_specialist(
            self._begin, definition, validate_only=request.validate_only
        )
        return registry_pb2.UpdateSpecialistResponse(
            specialist=wire.from_specialist(specialist),
            changes=[encode(registry_pb2.FieldChange, change) for change in changes],
        )

    def DeleteSpecialist(
        self, request: registry_pb2.DeleteSpecialistRequest, context: Context
    ) -> registry_pb2.DeleteSpecialistResponse:
        _may_use(request.name)
        justification = self._justification(request.decided_by, request.reason, required=False)
        specialist, deleted = deletions.delete_specialist(self._begin, request.name, justification)
        return registry_pb2.DeleteSpecialistResponse(specialist=wire.from_specialist(specialist), deleted=deleted)

    def GetSpecialist(
        self, request: registry_pb2.GetSpecialistRequest, context: Context
    ) -> registry_pb2.GetSpecialistResponse:
        return self._queries.specialist(wire.from_specialist(self._specialist(request.name)))

    def ListSpecialists(
        self, request: registry_pb2.ListSpecialistsRequest, context: Context
    ) -> registry_pb2.ListSpecialistsResponse:
        page = self._queries.list_specialists(request, current_caller().specialists)
        return registry_pb2.ListSpecialistsResponse(specialists=page.items, next_page_token=page.next_token)

    def ListRevisions(
        self, request: registry_pb2.ListRevisionsRequest, context: Context
    ) -> registry_pb2.ListRevisionsResponse:
        page = self._queries.list_revisions(request)
        return registry_pb2.ListRevisionsResponse(specialists=page.items, next_page_token=page.next_token)

    def ListDocuments(
        self, request: registry_pb2.ListDocumentsRequest, context: Context
    ) -> registry_pb2.ListDocumentsResponse:
        _may_use_all(request.specialist)
        if request.only_rejected or request.page_token.startswith(REJECTED_PAGE):
            # Rejected documents belong to no specialist, even if the request names one.
            _may_use_all("")
            request.page_token = request.page_token.removeprefix(REJECTED_PAGE)
            page = self._queries.list_rejected(request)
            token = REJECTED_PAGE + page.next_token if page.next_token else ""
            return registry_pb2.ListDocumentsResponse(documents=page.items, next_page_token=token)
        selector = self._specialist(request.specialist) if request.specialist else None
        if request.document_id:
            return self._document(selector, request.document_id)
        digest = self._find_dataset(request.dataset).digest if request.dataset else ""
        cursor = 0 if request.page_token else self._queries.cursor()
        page = self._queries.list_documents(request, selector, digest)
        token = page.next_token
        if not token and request.include_rejected and not digest and not current_caller().specialists:
            token = REJECTED_PAGE
        return registry_pb2.ListDocumentsResponse(cursor=cursor, documents=page.items, next_page_token=token)

    def _document(self, selector: Specialist | None, start: str) -> registry_pb2.ListDocumentsResponse:
        """The document with this id, or those whose ids begin so."""
        documents = self._queries.documents_by_id([start], selector) or self._queries.documents_from(
            start, selector, MAX_MATCHES
        )
        return registry_pb2.ListDocumentsResponse(
            documents=[registry_pb2.CatalogueDocument(anonymized=document) for document in documents]
        )

    def GetFlow(self, request: registry_pb2.GetFlowRequest, context: Context) -> registry_pb2.GetFlowResponse:
        return self._queries.flow(to_datetime(request.since) if request.HasField("since") else None)

    def GetAudit(self, request: audit_pb2.GetAuditRequest, context: Context) -> audit_pb2.GetAuditResponse:
        _may_use_all(request.specialist)
        selection = self._specialist(request.specialist).selection if request.specialist else Selection()
        return self._queries.audit(request.specialist, selection)

    def GetDataset(self, request: registry_pb2.GetDatasetRequest, context: Context) -> registry_pb2.GetDatasetResponse:
        payload = find_fact(self._queries, FactKind.DATASET, request.digest)
        return self._queries.dataset(payload)

    def GetAdapter(self, request: registry_pb2.GetAdapterRequest, context: Context) -> registry_pb2.GetAdapterResponse:
        adapter = self._queries.catalogue_adapter(self._find_adapter(request.digest))
        return registry_pb2.GetAdapterResponse(adapter=adapter)

    def PlanEvaluation(
        self, request: registry_pb2.PlanEvaluationRequest, context: Context
    ) -> registry_pb2.PlanEvaluationResponse:
        _may_use(request.specialist)
        payloads = [find_fact(self._queries, FactKind.DATASET, digest) for digest in request.dataset_digests]
        datasets = [models_pb2.DatasetBuilt.FromString(payload) for payload in payloads]
        preference = models_pb2.DATASET_KIND_PREFERENCE
        documents = [dataset.held_out_rows for dataset in datasets if dataset.kind != preference]
        pairs = [dataset.held_out_rows for dataset in datasets if dataset.kind == preference]
        plan = specialists.plan_evaluation(self._begin, request.specialist, documents, pairs)
        return encode(registry_pb2.PlanEvaluationResponse, plan)

    def ListDatasets(
        self, request: registry_pb2.ListDatasetsRequest, context: Context
    ) -> registry_pb2.ListDatasetsResponse:
        page = self._queries.list_datasets(request, _visible(request.specialist))
        return registry_pb2.ListDatasetsResponse(datasets=page.items, next_page_token=page.next_token)

    def ListAdapters(
        self, request: registry_pb2.ListAdaptersRequest, context: Context
    ) -> registry_pb2.ListAdaptersResponse:
        page = self._queries.list_adapters(request, _visible(request.specialist))
        return registry_pb2.ListAdaptersResponse(adapters=page.items, next_page_token=page.next_token)

    def Promote(self, request: registry_pb2.PromoteRequest, context: Context) -> registry_pb2.PromoteResponse:
        _may_use(request.specialist)
        override = self._justification(request.decided_by, request.reason) if request.override else None
        serving = promotions.promote(
            self._begin, request.specialist, request.adapter_digest, request.expected_generation, override
        )
        return registry_pb2.PromoteResponse(serving=wire.from_serving(serving))

    def Rollback(self, request: registry_pb2.RollbackRequest, context: Context) -> registry_pb2.RollbackResponse:
        _may_use(request.specialist)
        serving = promotions.roll_back(self._begin, request.specialist, request.expected_generation)
        return registry_pb2.RollbackResponse(serving=wire.from_serving(serving))

    def StartCanary(
        self, request: registry_pb2.StartCanaryRequest, context: Context
    ) -> registry_pb2.StartCanaryResponse:
        _may_use(request.specialist)
        serving = canaries.start_canary(
            self._begin,
            request.specialist,
            request.adapter_digest,
            request.expected_generation,
            lambda policy: update(policy, request.policy),
        )
        return registry_pb2.StartCanaryResponse(serving=wire.from_serving(serving))

    def StopCanary(self, request: registry_pb2.StopCanaryRequest, context: Context) -> registry_pb2.StopCanaryResponse:
        _may_use(request.specialist)
        serving = canaries.stop_canary(self._begin, request.specialist, request.expected_generation)
        return registry_pb2.StopCanaryResponse(serving=wire.from_serving(serving))

    def ListApprovals(
        self, request: registry_pb2.ListApprovalsRequest, context: Context
    ) -> registry_pb2.ListApprovalsResponse:
        page = self._queries.list_waiting(request, _visible(request.specialist))
        return registry_pb2.ListApprovalsResponse(adapters=page.items, next_page_token=page.next_token)

    def ApproveAdapter(
        self, request: registry_pb2.ApproveAdapterRequest, context: Context
    ) -> registry_pb2.ApproveAdapterResponse:
        digest = self._find_adapter(request.adapter_digest).digest
        justification = self._justification(request.decided_by, request.reason, required=False)
        serving = promotions.approve(self._begin, digest, justification)
        return registry_pb2.ApproveAdapterResponse(serving=wire.from_serving(serving))

    def DeclineAdapter(
        self, request: registry_pb2.DeclineAdapterRequest, context: Context
    ) -> registry_pb2.DeclineAdapterResponse:
        digest = self._find_adapter(request.adapter_digest).digest
        decision = promotions.decline(self._begin, digest, self._justification(request.decided_by, request.reason))
        return registry_pb2.DeclineAdapterResponse(decision=wire.from_decision(decision))

    def ListDecisions(
        self, request: registry_pb2.ListDecisionsRequest, context: Context
    ) -> registry_pb2.ListDecisionsResponse:
        page = self._queries.list_decisions(request, _visible(request.specialist))
        decisions = map(wire.from_decision, page.items)
        return registry_pb2.ListDecisionsResponse(decisions=decisions, next_page_token=page.next_token)

    def GetLeaderboard(
        self, request: registry_pb2.GetLeaderboardRequest, context: Context
    ) -> registry_pb2.GetLeaderboardResponse:
        return self._queries.leaderboard(self._specialist(request.specialist), request.metric)

    def PinEntry(self, request: registry_pb2.PinEntryRequest, context: Context) -> registry_pb2.PinEntryResponse:
        _may_use(request.specialist)
        specialists.pin_entry(self._begin, request.specialist, request.entry, pinned=request.pinned)
        return registry_pb2.PinEntryResponse()

    def Trace(self, request: registry_pb2.TraceRequest, context: Context) -> registry_pb2.TraceResponse:
        caller = current_caller()
        draft_id = complete_draft_id(self._queries, request.draft_id)
        draft = judgements.get_draft(
            self._begin, draft_id, role=caller.role, key_id=caller.key_id, may_use=caller.may_use
        )
        if request.draft_only:
            return registry_pb2.TraceResponse(draft=self._queries.draft(draft.draft_id))
        response = self._queries.trace(draft.draft_id)
        sees_documents = caller.kind == "service" or caller.role in SEES_DOCUMENTS
        if sees_documents and response.dataset.digest:
            traced = registry_pb2.ListDocumentsRequest(page_size=TRACED_DOCUMENTS)
            page = self._queries.list_documents(traced, dataset=response.dataset.digest)
            response.documents.extend(item.anonymized for item in page.items)
        return response

    def RecordJudgement(
        self, request: registry_pb2.RecordJudgementRequest, context: Context
    ) -> registry_pb2.RecordJudgementResponse:
        caller = current_caller()
        judged_by = request.judged_by if caller.kind == "service" else caller.key_id
        judgement_id = (
            derive_id("jdg", caller.name, caller.key_id, request.request_id) if request.request_id else new_id("jdg")
        )
        judgement = judgements.record_judgement(
            self._begin,
            self._anonymize,
            wire.to_given_judgement(request),
            judgement_id=judgement_id,
            may_use=caller.may_use,
            expert_id=judgements.identify_expert(judged_by),
        )
        return registry_pb2.RecordJudgementResponse(judgement=wire.from_judgement(judgement))

    def CreateKey(self, request: registry_pb2.CreateKeyRequest, context: Context) -> registry_pb2.CreateKeyResponse:
        if request.role not in common_pb2.Role.values() or request.role == common_pb2.ROLE_UNSPECIFIED:
            raise InvalidArgument(
                Reason.INVALID_KEY, "The key has no role.", field_violations={"role": "must be one of the five roles"}
            )
        role = enum_name(common_pb2.Role, request.role)
        terms = decode(KeyTerms, request, role=role, methods=named_methods(request.methods, request.role))
        caller = current_caller()
        keys.check_role(terms.role, caller.role)
        _check_own_limits(terms)
        key, secret = keys.create_key(self._begin, terms, caller.may_use, visitor_or_caller(request.created_by))
        return registry_pb2.CreateKeyResponse(key=wire.from_key(key), secret=secret)

    def ListKeys(self, request: registry_pb2.ListKeysRequest, context: Context) -> registry_pb2.ListKeysResponse:
        page = self._queries.list_keys(request, _may_manage_key)
        return registry_pb2.ListKeysResponse(keys=map(wire.from_key, page.items), next_page_token=page.next_token)

    def RevokeKey(self, request: registry_pb2.RevokeKeyRequest, context: Context) -> registry_pb2.RevokeKeyResponse:
        key = keys.revoke_key(self._begin, request.key_id, _may_manage_key, visitor_or_caller(request.revoked_by))
        return registry_pb2.RevokeKeyResponse(key=wire.from_key(key))

    def VerifyKey(self, request: registry_pb2.VerifyKeyRequest, context: Context) -> registry_pb2.VerifyKeyResponse:
        return registry_pb2.VerifyKeyResponse(key=wire.from_key(keys.verify_key(self._begin, request.secret_sha256)))

    def Erase(self, request: registry_pb2.EraseRequest, context: Context) -> registry_pb2.EraseResponse:
        caller = current_caller()
        erasure_id = (
            derive_id("ers", caller.name, caller.key_id, request.request_id) if request.request_id else new_id("ers")
        )
        erasure_request = ErasureRequest(erasure_id, list(request.document_ids), request.reason)
        erasure = erasures.erase(self._begin, self._awaits, erasure_request)
        return registry_pb2.EraseResponse(erasure=wire.from_erasure(erasure))

    def LiftErasure(
        self, request: registry_pb2.LiftErasureRequest, context: Context
    ) -> registry_pb2.LiftErasureResponse:
        return registry_pb2.LiftErasureResponse(
            erasure=wire.from_erasure(erasures.lift_erasure(self._begin, request.document_id))
        )

    def GetErasure(self, request: registry_pb2.GetErasureRequest, context: Context) -> registry_pb2.GetErasureResponse:
        return registry_pb2.GetErasureResponse(
            erasure=wire.from_erasure(erasures.get_erasure(self._begin, request.erasure_id))
        )

    def ListErasures(
        self, request: registry_pb2.ListErasuresRequest, context: Context
    ) -> registry_pb2.ListErasuresResponse:
        with self._begin() as tx:
            page = tx.erasures.list_page(request)
        erasures = map(wire.from_erasure, page.items)
        return registry_pb2.ListErasuresResponse(erasures=erasures, next_page_token=page.next_token)

    def _specialist(self, name: str) -> Specialist:
        _may_use(name)
        return specialists.get_specialist(self._begin, name)

    def _find_adapter(self, prefix: str) -> models_pb2.AdapterTrained:
        return models_pb2.AdapterTrained.FromString(find_fact(self._queries, FactKind.ADAPTER, prefix))

    def _justification(self, decided_by: str, reason: str, *, required: bool = True) -> Justification:
        """Who decides and why, without personal data. Blocks. Only the console may name another key than its own."""
        check_reason(reason, required=required)
        caller = current_caller()
        key_id = decided_by if caller.kind == "service" else caller.key_id
        return Justification(key_id, self._anonymize(reason.strip(), Labels()) if reason.strip() else "")

    def _find_dataset(self, prefix: str) -> models_pb2.DatasetBuilt:
        return models_pb2.DatasetBuilt.FromString(find_fact(self._queries, FactKind.DATASET, prefix))


def _may_use(specialist: str) -> None:
    # The same error as for an unknown specialist, so that a key does not reveal the others.
    if not current_caller().may_use(specialist):
        raise specialists.unknown_specialist()


def _visible(specialist: str) -> Collection[str]:
    """The specialists that a list is limited to: the named one, or else the caller's own. Empty for all."""
    if specialist:
        _may_use(specialist)
    return [specialist] if specialist else current_caller().specialists


def _may_use_all(specialist: str) -> None:
    """Raises PermissionDenied if a key for some specialists asks beyond one of them."""
    if not specialist and current_caller().specialists:
        raise PermissionDenied(Reason.SPECIALIST_NEEDED, "Your key is limited to some specialists. Name one of them.")


def _check_own_limits(terms: KeyTerms) -> None:
    """Raises InvalidArgument for a new key that would be allowed more than the caller's own."""
    caller = current_caller()
    violations = {}
    if caller.specialists and not terms.specialists:
        violations["specialists"] = "must name at least one of your own"
    if caller.methods and not (terms.methods and caller.methods.issuperset(terms.methods)):
        violations["methods"] = "must name at least one, and only your own"
    if caller.calls_per_minute and not 0 < terms.calls_per_minute <= caller.calls_per_minute:
        violations["calls_per_minute"] = f"must be 1 to {caller.calls_per_minute}, your own limit"
    if violations:
        message = "Your key is limited, so a new key must have the same or narrower limits."
        raise InvalidArgument(Reason.INVALID_KEY, message, field_violations=violations)


def _may_manage_key(key: ApiKey) -> bool:
    return may_manage(key.role, key.specialists)
