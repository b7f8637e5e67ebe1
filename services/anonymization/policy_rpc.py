"""The gRPC methods for policies and for what is held about a person."""

import grpc

from services.anonymization import handlers
from services.anonymization.adapters.policies import SqlPolicies
from services.anonymization.domain import MAX_POLICY_CHARS, Policy
from services.anonymization.ledger import SqlLedger
from services.anonymization.policy.comparison import compare, list_decisions
from services.anonymization.policy.installed import CurrentPolicy
from services.anonymization.policy.pattern_check import parse_checked_policy
from services.anonymization.policy.policy_file import policy_names
from services.anonymization.policy_wire import from_decision, from_difference, from_held, to_installed_message
from services.anonymization.ports import AuditLog, Subjects
from services.anonymization.wire import from_preview
from tailor.api.anonymization.v1 import policy_pb2, policy_pb2_grpc, subject_pb2, subject_pb2_grpc
from tailor.errors import InvalidArgument, Reason
from tailor.rpc.auth import current_caller
from tailor.wire import to_labels

# Patterns are tried on a text that makes nested repeats slow, also when no text is given.
HARD_TEXT = "a" * 40 + "1" * 40 + "-" * 20 + "A1-" * 20 + "!"


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
            decisions=map(from_decision, list_decisions(policy)),
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
        response = policy_pb2.ComparePoliciesResponse(
            before_digest=before.digest,
            after_digest=after.digest,
            differences=map(from_difference, compare(before, after, self._ledger.count_findings())),
            outdated_documents=self._ledger.count_outdated(installed.policy_digest, installed.detectors_digest),
        )
        if request.text:
            for policy, field in [(request.before, response.text_before), (request.after, response.text_after)]:
                preview = handlers.preview_text(self._current, request.text, policy, labels)
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
            policy=to_installed_message(installed), changed=changed, outdated_documents=outdated
        )

    def ListPolicies(
        self, request: policy_pb2.ListPoliciesRequest, context: grpc.ServicerContext
    ) -> policy_pb2.ListPoliciesResponse:
        del context
        page = self._policies.list(request)
        policies = map(to_installed_message, page.items)
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
    """Translates calls."""

    def __init__(self, subjects: Subjects, ledger: SqlLedger, audit: AuditLog) -> None:
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
        return from_held(held)


def _caller_id() -> str:
    caller = current_caller()
    return caller.key_id or caller.name
