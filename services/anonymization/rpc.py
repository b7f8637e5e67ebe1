"""The gRPC methods of anonymization: each translates its request, calls a handler, and translates the answer."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import grpc

from services.anonymization import handlers
from services.anonymization.ports import (
    Anonymizer,
    AuditLog,
    Previewer,
    PromptAnonymizer,
    Revealer,
    Subjects,
    TrueValues,
)
from services.anonymization.recognise import budget
from services.anonymization.wire import from_preview
from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.codec import encode
from tailor.rpc.auth import current_caller
from tailor.wire import to_labels


class AnonymizationServicer(anonymization_pb2_grpc.AnonymizationServiceServicer):
    """Translates calls to handlers."""

    def __init__(
        self,
        *,
        anonymizer: Anonymizer,
        prompts: PromptAnonymizer,
        previewer: Previewer,
        vault: Revealer,
        subjects: Subjects,
        true_values: TrueValues,
        audit: AuditLog,
    ) -> None:
        self._anonymizer = anonymizer
        self._prompts = prompts
        self._previewer = previewer
        self._vault = vault
        self._subjects = subjects
        self._true_values = true_values
        self._audit = audit

    def Anonymize(
        self, request: anonymization_pb2.AnonymizeRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizeResponse:
        with _while_awaited(context):
            result = handlers.anonymize_texts(
                self._anonymizer, tuple(request.texts) or (request.text,), to_labels(request.labels)
            )
        texts: dict[str, Any] = {"texts": result.texts} if request.texts else {"texts": (), "text": result.texts[0]}
        return encode(anonymization_pb2.AnonymizeResponse, result, **texts)

    def AnonymizeRow(
        self, request: anonymization_pb2.AnonymizeRowRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizeRowResponse:
        texts, labels = tuple(request.texts), to_labels(request.labels)
        with _while_awaited(context):
            result = handlers.anonymize_row(self._anonymizer, self._subjects, request.row_id, texts, labels)
        return anonymization_pb2.AnonymizeRowResponse(texts=result.texts, surrogates=len(result.values))

    def AnonymizeEdit(
        self, request: anonymization_pb2.AnonymizeEditRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizeEditResponse:
        passed, labels = tuple(request.passed_texts), to_labels(request.labels)
        with _while_awaited(context):
            result = handlers.anonymize_edit(
                self._anonymizer, self._subjects, request.row_id, request.text, passed=passed, labels=labels
            )
        return anonymization_pb2.AnonymizeEditResponse(text=result.texts[0], replaced=sum(result.findings.values()))

    def AnonymizePrompt(
        self, request: anonymization_pb2.AnonymizePromptRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.AnonymizePromptResponse:
        texts, beside = tuple(request.texts), tuple(request.beside)
        with _while_awaited(context):
            prompt = handlers.anonymize_prompt(self._prompts, texts, to_labels(request.labels), beside)
        pairs = [anonymization_pb2.SurrogatePair(surrogate=name, value=value) for name, value in prompt.pairs.items()]
        return anonymization_pb2.AnonymizePromptResponse(texts=prompt.texts, pairs=pairs)

    def PreviewAnonymization(
        self, request: anonymization_pb2.PreviewAnonymizationRequest, context: grpc.ServicerContext
    ) -> anonymization_pb2.PreviewAnonymizationResponse:
        labels = to_labels(request.labels)
        with _while_awaited(context):
            return from_preview(handlers.preview_text(self._previewer, request.text, request.policy, labels))

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
            self._true_values,
            self._audit,
            caller=_caller_id(),
            texts=texts,
            known_texts=known,
            document_ids=(message.document_ids for message in chain(first, request_iterator)),
        )
        return anonymization_pb2.CountTrueValuesResponse(counts=counts)


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
