"""Replaces personal values in texts that people send to synthetic."""

import grpc

from services.synthetic.domain import Specialist
from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.rpc.channel import wire_errors
from tailor.wire import from_labels

TIMEOUT_SECONDS = 30


class SpecialistAnonymizer:
    """The barrier, under the rules of a specialist's documents."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)

    def __call__(self, specialist: Specialist, text: str) -> str:
        """The text with surrogates. Blocks. Raises Unavailable while the barrier does not answer."""
        labels = from_labels(specialist.selection.common_labels)
        request = anonymization_pb2.AnonymizeRequest(text=text, labels=labels)
        with wire_errors("anonymization"):
            return self._stub.Anonymize(request, timeout=TIMEOUT_SECONDS).text
