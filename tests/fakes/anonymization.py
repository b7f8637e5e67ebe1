"""The anonymization service in this process, with answers that tests set."""

from typing import Any

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.errors import InvalidArgument, Reason
from tests.fakes.serving import refuse


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
