"""The barrier for rows that are imported."""

from collections.abc import Sequence

import grpc

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.errors import FailedPrecondition, Reason
from tailor.rpc.channel import wire_errors

TIMEOUT_SECONDS = 30
# A paragraph between texts that are anonymised together.
SEPARATOR = "\n\n\u241e\n\n"


class RowAnonymizer:
    """An `imports.ports.AnonymizeTexts`: the texts of a row as one, so that a value found in one is replaced in all of them.

    The policy's default table applies, because imported data has no labels. Blocks for at most TIMEOUT_SECONDS. Thread-safe.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)

    def __call__(self, texts: Sequence[str]) -> tuple[str, ...]:
        request = anonymization_pb2.AnonymizeRequest(text=SEPARATOR.join(texts))
        with wire_errors("anonymization"):
            clean = self._stub.Anonymize(request, timeout=TIMEOUT_SECONDS).text
        parts = tuple(clean.split(SEPARATOR))
        if len(parts) != len(texts):
            raise FailedPrecondition(Reason.TEXTS_NOT_APART, "A text contains the separator of texts.")
        return parts
