"""Anonymization over gRPC: texts of drafts that are stored, and private prompts."""

from collections.abc import Mapping, Sequence

import grpc

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.errors import InvalidArgument, Reason, TailorError, Unavailable
from tailor.rpc.channel import wire_errors
from tailor.values import Labels
from tailor.wire import from_labels

# Nobody waits for a stored text. A call that ends too early has done its work in vain, and on a busy machine so do all further ones.
STORED_SECONDS = 120
EDIT_SECONDS = 20
PROMPT_SECONDS = 10


class AnonymizationClient:
    """Blocks for at most STORED_SECONDS, EDIT_SECONDS or PROMPT_SECONDS per call. Thread-safe."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)

    def anonymize(self, texts: Sequence[str], labels: Labels) -> tuple[str, ...]:
        """Anonymise texts that belong together, so that a value found in one is replaced in all of them.

        Raises Unavailable (SERVICE_FAILED) if anonymization is of a version that takes only one text.
        """
        request = anonymization_pb2.AnonymizeRequest(texts=texts, labels=from_labels(labels))
        with wire_errors("anonymization"):
            clean = tuple(self._stub.Anonymize(request, timeout=STORED_SECONDS).texts)
        if len(clean) != len(texts):
            raise Unavailable(Reason.SERVICE_FAILED, "anonymization takes only one text; update it.")
        return clean

    def anonymize_edit(self, text_id: str, text: str, passed: Sequence[str], labels: Labels) -> str:
        """The text without the personal values that do not occur in the stored texts that it was made from, which `passed` before.

        Its surrogates are recorded under the id. Raises Unavailable while anonymization does not answer.
        """
        request = anonymization_pb2.AnonymizeEditRequest(
            row_id=text_id, text=text, passed_texts=passed, labels=from_labels(labels)
        )
        with wire_errors("anonymization"):
            return self._stub.AnonymizeEdit(request, timeout=EDIT_SECONDS).text

    def hide(
        self, texts: Sequence[str], labels: Labels, avoid: Sequence[str]
    ) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """The texts with surrogates drawn for this call only, and the personal values by surrogate. No surrogate occurs in `avoid`.

        Raises InvalidArgument if the texts are too long, Unavailable (BARRIER_UNAVAILABLE) while anonymization does not answer.
        """
        request = anonymization_pb2.AnonymizePromptRequest(texts=texts, labels=from_labels(labels), beside=avoid)
        try:
            with wire_errors("anonymization"):
                response = self._stub.AnonymizePrompt(request, timeout=PROMPT_SECONDS)
        except InvalidArgument as error:
            violations = {"messages": error.message}
            raise InvalidArgument(error.reason, error.message, field_violations=violations) from None
        except TailorError:
            raise Unavailable(
                Reason.BARRIER_UNAVAILABLE,
                "This specialist's prompts are private and anonymization does not answer, so the model was not asked. Retry.",
                retry_after_seconds=2.0,
            ) from None
        return tuple(response.texts), {pair.surrogate: pair.value for pair in response.pairs}
