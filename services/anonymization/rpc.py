"""The gRPC face of anonymization."""

import grpc

from services.anonymization.domain import Anonymizer, Audit, Vault
from services.anonymization.handlers import anonymize_text, reidentify
from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.rpc.auth import current_caller


class AnonymizationServicer(anonymization_pb2_grpc.AnonymizationServiceServicer):
    """Translates calls to handlers."""

    def __init__(self, anonymizer: Anonymizer, vault: Vault, audit: Audit, policy_digest: str) -> None:
        self._anonymizer = anonymizer
        self._vault = vault
        self._audit = audit
        self._policy_digest = policy_digest

    def Anonymize(
        self, request: anonymization_pb2.AnonymizeRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizeResponse:
        """The text with surrogates."""
        del context
        result = anonymize_text(self._anonymizer, request.text)
        return anonymization_pb2.AnonymizeResponse(
            text=result.texts[0], findings=result.findings, policy_digest=self._policy_digest
        )

    def Reidentify(
        self, request: anonymization_pb2.ReidentifyRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.ReidentifyResponse:
        """The true value of a surrogate."""
        del context
        caller = current_caller()
        value = reidentify(
            self._vault,
            self._audit,
            caller=caller.key_id or caller.name,
            entity_type=request.entity_type,
            surrogate=request.surrogate,
            purpose=request.purpose,
        )
        return anonymization_pb2.ReidentifyResponse(value=value)
