"""The gRPC methods of anonymization: each translates its request, calls a handler, and translates the answer."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import grpc

from services.anonymization import handlers
from services.anonymization.adapters.policies import SqlPolicies
from services.anonymization.domain import MAX_POLICY_CHARS, HeldDocument, Policy
from services.anonymization.ledger import SqlAuditLog, SqlLedger
from services.anonymization.policy.comparison import compare, list_decisions
from services.anonymization.policy.installed import CurrentPolicy
from services.anonymization.policy.pattern_check import parse_checked_policy
from services.anonymization.policy.policy_file import policy_names
from services.anonymization.recognise import budget
from services.anonymization.vault.subjects import SubjectIndex
from services.anonymization.vault.vault import SqlVault
from services.anonymization.wire import from_milliseconds, from_preview
from tailor.api.anonymization.v1 import (
    anonymization_pb2,
    anonymization_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    subject_pb2,
    subject_pb2_grpc,
)
from tailor.codec import encode
from tailor.errors import InvalidArgument, Reason
from tailor.rpc.auth import current_caller
from tailor.wire import from_labels, to_labels

# Patterns are tried on a text that makes nested repeats slow, also when no text is given.
HARD_TEXT = "a" * 40 + "1" * 40 + "-" * 20 + "A1-" * 20 + "!"


class AnonymizationServicer(anonymization_pb2_grpc.AnonymizationServiceServicer):
    """Translates calls to handlers. `current` is the policy in force."""

    def __init__(self, current: CurrentPolicy, vault: SqlVault, subjects: SubjectIndex) -> None:
        self._current = current
        self._vault = vault
        self._subjects = subjects
        self._audit = SqlAuditLog(vault.engine)

    def Anonymize(
        self, request: anonymization_pb2.AnonymizeRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizeResponse:
        with _while_awaited(context):
            result = handlers.anonymize_texts(
                self._current, tuple(request.texts) or (request.text,), to_labels(request.labels)
            )
        texts: dict[str, Any] = {"texts": result.texts} if request.texts else {"texts": (), "text": result.texts[0]}
        return encode(anonymization_pb2.AnonymizeResponse, result, **texts)

    def AnonymizeRow(
        self, request: anonymization_pb2.AnonymizeRowRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizeRowResponse:
        texts, labels = tuple(request.texts), to_labels(request.labels)
        with _while_awaited(context):
            result = handlers.anonymize_row(self._current, self._subjects, request.row_id, texts, labels)
        return anonymization_pb2.AnonymizeRowResponse(texts=result.texts, surrogates=len(result.values))

    def AnonymizeEdit(
        self, request: anonymization_pb2.AnonymizeEditRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizeEditResponse:
        passed, labels = tuple(request.passed_texts), to_labels(request.labels)
        with _while_awaited(context):
            result = handlers.anonymize_edit(
                self._current, self._subjects, request.row_id, request.text, passed=passed, labels=labels
            )
        return anonymization_pb2.AnonymizeEditResponse(text=result.texts[0], replaced=sum(result.findings.values()))

    def AnonymizePrompt(
        self, request: anonymization_pb2.AnonymizePromptRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizePromptResponse:
        texts, beside = tuple(request.texts), tuple(request.beside)
        with _while_awaited(context):
            prompt = handlers.anonymize_prompt(self._current.parts.prompts, texts, to_labels(request.labels), beside)
        pairs = [anonymization_pb2.SurrogatePair(surrogate=name, value=value) for name, value in prompt.pairs.items()]
        return anonymization_pb2.AnonymizePromptResponse(texts=prompt.texts, pairs=pairs)

    def PreviewAnonymization(
        self, request: anonymization_pb2.PreviewAnonymizationRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.PreviewAnonymizationResponse:
        labels = to_labels(request.labels)
        with _while_awaited(context):
            return from_preview(
                handlers.preview_text(self._current.parts.previewer, request.text, request.policy, labels)
            )

    def Reidentify(
        self, request: anonymization_pb2.ReidentifyRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.ReidentifyResponse:
        del context
        value = handlers.reidentify(
            self._vault,
            self._audit,
            caller=_caller_id(),
            entity_type=request.entity_type,
            surrogate=request.surrogate,
            purpose=request.purpose,
        )
        return anonymization_pb2.ReidentifyResponse(value=value)

    def ResolveSubject(
        self, request: anonymization_pb2.ResolveSubjectRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.ResolveSubjectResponse:
        del context
        resolved = handlers.resolve_subject(
            self._subjects, self._audit, caller=_caller_id(), subject=request.subject, dry_run=request.dry_run
        )
        return anonymization_pb2.ResolveSubjectResponse(
            document_ids=resolved.document_ids, vault_entries=resolved.vault_entries
        )

    def LiftSubject(
        self, request: anonymization_pb2.LiftSubjectRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.LiftSubjectResponse:
        del context
        handlers.lift_subject(self._subjects, self._audit, caller=_caller_id(), subject=request.subject)
        return anonymization_pb2.LiftSubjectResponse()

    def CountTrueValues(
        self, request_iterator: Iterator[anonymization_pb2.CountTrueValuesRequest], context: grpc.ServicerContext
    ) -> anonymization_pb2.CountTrueValuesResponse:
        """Read all texts, then one batch of ids after another."""
        del context
        texts, known, first = _read_texts(request_iterator)
        counts = handlers.count_true_values(
            self._current.parts.true_values,
            self._audit,
            caller=_caller_id(),
            texts=texts,
            known_texts=known,
            document_ids=(message.document_ids for message in chain(first, request_iterator)),
        )
        return anonymization_pb2.CountTrueValuesResponse(counts=counts)


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    """Translates calls. `current` is the policy in force."""

    def __init__(self, current: CurrentPolicy, policies: SqlPolicies, ledger: SqlLedger) -> None:
        self._current = current
        self._policies = policies
        self._ledger = ledger

    def CheckPolicy(
        self, request: policy_pb2.CheckPolicyRequest, context: grpc.ServicerContext
    ) -> policy_pb2.CheckPolicyResponse:
        del context
        policy = self._read(request.policy)
        files = {path for paths in policy.deny_files.values() for path in paths} | {*policy.allow_files}
        return policy_pb2.CheckPolicyResponse(
            policy_digest=policy.digest,
            decisions=[encode(policy_pb2.PolicyDecision, decision) for decision in list_decisions(policy)],
            named_policies=policy_names(),
            list_files=sorted(files),
            detectors_digest=self._current.installed.detectors_digest,
        )

    def ComparePolicies(
        self, request: policy_pb2.ComparePoliciesRequest, context: grpc.ServicerContext
    ) -> policy_pb2.ComparePoliciesResponse:
        del context
        before, after = self._read(request.before, request.text), self._read(request.after, request.text)
        installed, labels = self._current.look(), to_labels(request.labels)
        differences = compare(before, after, self._ledger.count_findings())
        response = policy_pb2.ComparePoliciesResponse(
            before_digest=before.digest,
            after_digest=after.digest,
            differences=[encode(policy_pb2.PolicyDifference, difference) for difference in differences],
            outdated_documents=self._ledger.count_outdated(installed.policy_digest, installed.detectors_digest),
        )
        if request.text:
            for policy, field in [(request.before, response.text_before), (request.after, response.text_after)]:
                preview = handlers.preview_text(self._current.parts.previewer, request.text, policy, labels)
                field.CopyFrom(from_preview(preview))
        return response

    def ApplyPolicy(
        self, request: policy_pb2.ApplyPolicyRequest, context: grpc.ServicerContext
    ) -> policy_pb2.ApplyPolicyResponse:
        del context
        if not request.policy.strip():
            raise InvalidArgument(
                Reason.INVALID_POLICY, "The policy is empty.", field_violations={"policy": "must be TOML"}
            )
        self._read(request.policy)
        installed, changed = self._current.install(request.policy.encode(), _caller_id())
        outdated = self._ledger.count_outdated(installed.policy_digest, installed.detectors_digest)
        return policy_pb2.ApplyPolicyResponse(
            policy=encode(policy_pb2.InstalledPolicy, installed), changed=changed, outdated_documents=outdated
        )

    def ListPolicies(
        self, request: policy_pb2.ListPoliciesRequest, context: grpc.ServicerContext
    ) -> policy_pb2.ListPoliciesResponse:
        del context
        page = self._policies.list(request)
        policies = [encode(policy_pb2.InstalledPolicy, item) for item in page.items]
        return policy_pb2.ListPoliciesResponse(policies=policies, next_page_token=page.next_token)

    def _read(self, source: str, text: str = "") -> Policy:
        """The policy in TOML, with its patterns tried in a separate process; the one in force if empty."""
        if len(source) > MAX_POLICY_CHARS:
            raise InvalidArgument(
                Reason.TOO_LONG,
                "The policy is too long.",
                field_violations={"policy": f"has over {MAX_POLICY_CHARS} characters; put names into files"},
            )
        self._current.look()
        return parse_checked_policy(source, [HARD_TEXT, text]) if source else self._current.policy


class SubjectServicer(subject_pb2_grpc.SubjectServiceServicer):
    """Translates calls about what is held about a person."""

    def __init__(self, subjects: SubjectIndex, ledger: SqlLedger, audit: SqlAuditLog) -> None:
        self._subjects = subjects
        self._ledger = ledger
        self._audit = audit

    def DescribeSubject(
        self, request: subject_pb2.DescribeSubjectRequest, context: grpc.ServicerContext
    ) -> subject_pb2.DescribeSubjectResponse:
        del context
        held = handlers.describe_subject(
            self._subjects, self._ledger, self._audit, caller=_caller_id(), subject=request.subject
        )
        return encode(subject_pb2.DescribeSubjectResponse, held, documents=map(_from_document, held.documents))


def _while_awaited(context: grpc.ServicerContext) -> AbstractContextManager[None]:
    """Ends the work on a text when its caller has gone."""
    return budget.limit(math.inf, lambda: not context.is_active())


def _caller_id() -> str:
    caller = current_caller()
    return caller.key_id or caller.name


def _read_texts(
    messages: Iterator[anonymization_pb2.CountTrueValuesRequest],
) -> tuple[list[str], list[str], list[anonymization_pb2.CountTrueValuesRequest]]:
    """The texts and known texts of a stream up to its first message with ids, and that message."""
    texts: list[str] = []
    known: list[str] = []
    for message in messages:
        texts += message.texts
        known += message.known_texts
        handlers.check_search(texts, known)
        if message.document_ids:
            return texts, known, [message]
    return texts, known, []


def _from_document(document: HeldDocument) -> subject_pb2.SubjectDocument:
    passed = document.passed
    if passed is None:
        return subject_pb2.SubjectDocument(document_id=document.document_id)
    return encode(
        subject_pb2.SubjectDocument,
        passed,
        document_id=document.document_id,
        labels=from_labels(passed.ingested.labels),
        create_time=from_milliseconds(passed.time_ms),
    )
