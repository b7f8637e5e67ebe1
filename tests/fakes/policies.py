"""Fakes of the services for policies, people, replays and lineage."""

from typing import Any

from tailor.api.anonymization.v1 import anonymization_pb2, policy_pb2, policy_pb2_grpc, subject_pb2, subject_pb2_grpc
from tailor.api.common.v1 import common_pb2
from tailor.api.ingestion.v1 import replay_pb2, replay_pb2_grpc
from tailor.api.registry.v1 import lineage_pb2, lineage_pb2_grpc
from tailor.errors import InvalidArgument, Reason, TailorError
from tests.fakes.serving import refuse

DOCUMENTS = [f"doc_{number:032x}" for number in range(2)]


class FakePolicies(policy_pb2_grpc.PolicyServiceServicer):
    """Refuses policies with `hide`."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def CheckPolicy(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        if "hide" in request.policy:
            problems = {"types.PERSON": "must be 'surrogate', 'mask', 'generalise' or 'keep'"}
            refuse(context, InvalidArgument(Reason.INVALID_POLICY, "The policy is invalid.", field_violations=problems))
        decisions = [
            policy_pb2.PolicyDecision(entity_type="PERSON", action="surrogate", rule=-1),
            policy_pb2.PolicyDecision(entity_type="HEALTH", action="mask", rule=-1),
            policy_pb2.PolicyDecision(entity_type="PERSON", action="mask", rule=0, labels={"department": "legal"}),
        ]
        return policy_pb2.CheckPolicyResponse(
            policy_digest="ab" * 32, decisions=decisions, named_policies=["ccpa", "default"], list_files=["clients.csv"]
        )

    def ComparePolicies(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        difference = policy_pb2.PolicyDifference(
            entity_type="NRP",
            labels=common_pb2.Labels(department="people"),
            before="keep",
            after="mask",
            documents=3,
            values=7,
        )
        response = policy_pb2.ComparePoliciesResponse(
            before_digest="ab" * 32, after_digest="cd" * 32, differences=[difference]
        )
        if request.text:
            response.text_before.CopyFrom(anonymization_pb2.PreviewAnonymizationResponse(text=request.text))
            changed = request.text.replace("Polish", "[NRP]")
            response.text_after.CopyFrom(anonymization_pb2.PreviewAnonymizationResponse(text=changed))
        return response

    def ApplyPolicy(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        installed = policy_pb2.InstalledPolicy(
            generation=2, policy_digest="cd" * 32, installed_by="key_1", barrier_digest="ba" * 32
        )
        return policy_pb2.ApplyPolicyResponse(policy=installed, changed=True, outdated_documents=40)

    def ListPolicies(self, request: Any, context: Any) -> Any:
        installed = policy_pb2.InstalledPolicy(
            generation=2,
            policy_digest="cd" * 32,
            detectors_digest="ef" * 32,
            installed_by="key_1",
            barrier_digest="ba" * 32,
        )
        return policy_pb2.ListPoliciesResponse(policies=[installed])


class FakeSubjects(subject_pb2_grpc.SubjectServiceServicer):
    def __init__(self) -> None:
        self.subjects: list[str] = []

    def DescribeSubject(self, request: Any, context: Any) -> Any:
        self.subjects.append(request.subject)
        documents = [
            subject_pb2.SubjectDocument(document_id=document_id, findings={"PERSON": 2}, language="en")
            for document_id in (DOCUMENTS if request.subject == "Sarah Jenkins" else [])
        ]
        return subject_pb2.DescribeSubjectResponse(entity_type="PERSON", documents=documents, vault_entries=2)


class FakeReplays(replay_pb2_grpc.ReplayServiceServicer):
    """A replay that ends when it is asked for the second time."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.refusal: TailorError | None = None
        self.cancelled: list[str] = []

    def replay(self, state: int = replay_pb2.REPLAY_STATE_RUNNING, **outcomes: int) -> Any:
        return replay_pb2.Replay(replay_id="rpl_1", state=state, documents=2, outcomes=outcomes)  # type: ignore[arg-type]

    def StartReplay(self, request: Any, context: Any) -> Any:
        if self.refusal is not None:
            refuse(context, self.refusal)
        self.started.append(request)
        return replay_pb2.StartReplayResponse(replay=self.replay())

    def GetReplay(self, request: Any, context: Any) -> Any:
        done = self.replay(replay_pb2.REPLAY_STATE_DONE, KEPT=1, NEEDS_OWNER=1)
        return replay_pb2.GetReplayResponse(replay=done)

    def ListReplays(self, request: Any, context: Any) -> Any:
        return replay_pb2.ListReplaysResponse(replays=[self.replay(KEPT=1)])

    def CancelReplay(self, request: Any, context: Any) -> Any:
        self.cancelled.append(request.replay_id)
        return replay_pb2.CancelReplayResponse(replay=self.replay(replay_pb2.REPLAY_STATE_CANCELLED))

    def ListReplayDocuments(self, request: Any, context: Any) -> Any:
        outcomes = zip(DOCUMENTS, ("KEPT", "NEEDS_OWNER"), strict=True)
        documents = [
            replay_pb2.ReplayDocument(document_id=document_id, outcome=outcome)
            for document_id, outcome in outcomes
            if request.outcome in ("", outcome)
        ]
        return replay_pb2.ListReplayDocumentsResponse(documents=documents)


class FakeLineage(lineage_pb2_grpc.LineageServiceServicer):
    """One adapter learned from the earlier version of the first document, one from its newest, and one from the second document."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def ListLearners(self, request: Any, context: Any) -> Any:
        self.asked.append(list(request.document_ids))
        first, second = (document_id in request.document_ids for document_id in DOCUMENTS)
        adapters = [("ad", True)] * first + [("ae", False)] * first + [("af", False)] * second
        learners = [
            lineage_pb2.Learner(
                adapter_digest=digits * 32,
                specialist="reports",
                dataset_digest="da" * 32,
                serving=True,
                tainted=tainted,
            )
            for digits, tainted in adapters
        ]
        return lineage_pb2.ListLearnersResponse(dataset_digests=["da" * 32], learners=learners)
