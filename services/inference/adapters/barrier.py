"""Anonymization over gRPC: what is kept of drafts, and prompts that are private."""

from collections.abc import Mapping, Sequence

import grpc

from services.inference.keeping import Labels
from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.common.v1 import common_pb2
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, TailorError, Unavailable
from tailor.rpc.channel import wire_errors

DRAFT_SECONDS = 20
PROMPT_SECONDS = 10
# A paragraph of its own between texts that pass the barrier together.
BETWEEN = "\n\n\u241e\n\n"


class RemoteBarrier:
    """Satisfies `keeping.Barrier` and `private.PromptBarrier`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)

    def anonymize(self, texts: Sequence[str], labels: Labels) -> tuple[str, ...]:
        """The texts as one, so that a value found in one is replaced in all; FailedPrecondition where they are not told apart after it."""
        request = anonymization_pb2.AnonymizeRequest(text=BETWEEN.join(texts), labels=_to_labels(labels))
        with wire_errors("anonymization"):
            clean = self._stub.Anonymize(request, timeout=DRAFT_SECONDS).text
        parts = tuple(clean.split(BETWEEN))
        if len(parts) != len(texts):
            raise FailedPrecondition(Reason.TEXTS_NOT_APART, "A text holds the sign that stands between texts.")
        return parts

    def hide(
        self, texts: Sequence[str], labels: Labels, beside: Sequence[str]
    ) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """The texts with surrogates of their own, and the values by surrogate; whatever else hinders it is Unavailable."""
        request = anonymization_pb2.AnonymizePromptRequest(texts=texts, labels=_to_labels(labels), beside=beside)
        try:
            with wire_errors("anonymization"):
                answer = self._stub.AnonymizePrompt(request, timeout=PROMPT_SECONDS)
        except InvalidArgument as error:
            violations = {"messages": error.message}
            raise InvalidArgument(error.reason, error.message, field_violations=violations) from None
        except TailorError:
            raise Unavailable(
                Reason.BARRIER_UNAVAILABLE,
                "Prompts of this specialist are private, and anonymization does not answer; the model was not asked. Retry.",
                retry_after_seconds=2.0,
            ) from None
        return tuple(answer.texts), {pair.surrogate: pair.value for pair in answer.pairs}


def _to_labels(labels: Labels) -> common_pb2.Labels:
    source, department, confidentiality = labels
    return common_pb2.Labels(source=source, department=department, confidentiality=confidentiality)
