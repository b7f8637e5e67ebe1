"""The gRPC face of anonymization."""

import grpc

from services.anonymization.domain import Action, Anonymizer, Audit, Labels, PromptAnonymizer, Stage, Subjects, Vault
from services.anonymization.erasures import lift_subject, resolve_subject
from services.anonymization.handlers import anonymize_prompt, anonymize_text, preview, reidentify
from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.common.v1 import common_pb2
from tailor.rpc.auth import current_caller

ACTIONS = {
    Action.SURROGATE: anonymization_pb2.ACTION_SURROGATE,
    Action.MASK: anonymization_pb2.ACTION_MASK,
    Action.GENERALISE: anonymization_pb2.ACTION_GENERALISE,
}


class AnonymizationServicer(anonymization_pb2_grpc.AnonymizationServiceServicer):
    """Translates calls to handlers."""

    def __init__(
        self,
        anonymizer: Anonymizer,
        vault: Vault,
        audit: Audit,
        *,
        policy_digest: str,
        subjects: Subjects,
        stage: Stage,
        prompts: PromptAnonymizer,
    ) -> None:
        self._anonymizer = anonymizer
        self._vault = vault
        self._audit = audit
        self._policy_digest = policy_digest
        self._subjects = subjects
        self._stage = stage
        self._prompts = prompts

    def Anonymize(
        self, request: anonymization_pb2.AnonymizeRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizeResponse:
        """The text with surrogates."""
        del context
        result = anonymize_text(self._anonymizer, request.text, _labels(request.labels))
        return anonymization_pb2.AnonymizeResponse(
            text=result.texts[0], findings=result.findings, policy_digest=self._policy_digest
        )

    def AnonymizePrompt(
        self, request: anonymization_pb2.AnonymizePromptRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizePromptResponse:
        """A prompt's texts with surrogates of their own, and what these stand for."""
        del context
        texts, beside = tuple(request.texts), tuple(request.beside)
        prompt = anonymize_prompt(self._prompts, texts, _labels(request.labels), beside)
        pairs = [anonymization_pb2.SurrogatePair(surrogate=each, value=value) for each, value in prompt.pairs.items()]
        return anonymization_pb2.AnonymizePromptResponse(texts=prompt.texts, pairs=pairs)

    def PreviewAnonymization(
        self, request: anonymization_pb2.PreviewAnonymizationRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.PreviewAnonymizationResponse:
        """What a text would become."""
        del context
        result, digest = preview(self._stage, request.text, request.policy, _labels(request.labels))
        changes = [
            anonymization_pb2.Change(
                start=change.start,
                end=change.end,
                entity_type=change.entity_type,
                action=ACTIONS[change.action],
                replacement=change.replacement,
            )
            for changes in result.changes[:1]
            for change in changes
        ]
        return anonymization_pb2.PreviewAnonymizationResponse(
            text=result.texts[0], findings=result.findings, changes=changes, policy_digest=digest
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

    def ResolveSubject(
        self, request: anonymization_pb2.ResolveSubjectRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.ResolveSubjectResponse:
        """The documents of a person, who is suppressed from now on."""
        del context
        caller = current_caller()
        found = resolve_subject(
            self._subjects,
            self._audit,
            caller=caller.key_id or caller.name,
            subject=request.subject,
            dry_run=request.dry_run,
        )
        return anonymization_pb2.ResolveSubjectResponse(
            document_ids=found.document_ids, vault_entries=found.vault_entries
        )

    def LiftSubject(
        self, request: anonymization_pb2.LiftSubjectRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.LiftSubjectResponse:
        """End a person's suppression."""
        del context
        caller = current_caller()
        lift_subject(self._subjects, self._audit, caller=caller.key_id or caller.name, subject=request.subject)
        return anonymization_pb2.LiftSubjectResponse()


def _labels(labels: common_pb2.Labels) -> Labels:
    return labels.source, labels.department, labels.confidentiality
