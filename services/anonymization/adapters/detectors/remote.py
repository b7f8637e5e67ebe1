"""A detector behind gRPC: the company's own server of tailor.api.anonymization.v1.DetectorService."""

from collections.abc import Sequence

import grpc
from presidio_analyzer import EntityRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts

from services.anonymization.recognise.detectors.definition import Detector
from tailor.api.anonymization.v1 import detector_pb2, detector_pb2_grpc
from tailor.errors import Reason, Unavailable
from tailor.rpc.channel import OPTIONS, wire_errors

SECONDS = 20


class RemoteRecogniser(EntityRecognizer):  # type: ignore[misc]
    """Asks the server about each paragraph. A server that does not answer stops the document, so that nothing passes unread."""

    def __init__(self, detector: Detector, language: str, channel: grpc.Channel) -> None:
        self._labels = detector.labels
        self._language = language
        self._stub = detector_pb2_grpc.DetectorServiceStub(channel)
        self._name = detector.name
        types = sorted(set(detector.labels.values()))
        super().__init__(supported_entities=types, name=detector.name, supported_language=language)

    def load(self) -> None:
        """Presidio requires this method; the channel connects at the first call."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        """Blocks for at most SECONDS. Raises Unavailable (DETECTOR_UNAVAILABLE), also for places outside of the text."""
        del entities, nlp_artifacts
        request = detector_pb2.DetectRequest(text=text, language=self._language)
        with wire_errors(f"detector {self._name}"):
            values = self._stub.Detect(request, timeout=SECONDS).values
        if any(not value.start < value.end <= len(text) for value in values):
            raise Unavailable(
                Reason.DETECTOR_UNAVAILABLE, f"The detector `{self._name}` answered with a place outside of the text."
            )
        return [
            RecognizerResult(self._labels[value.label], value.start, value.end, max(0.0, min(1.0, value.score)))
            for value in values
            if value.label in self._labels
        ]


def remote_recognisers(detector: Detector, language: str) -> Sequence[EntityRecognizer]:
    """One recogniser over the detector's address. The server belongs to the raw zone: it reads texts before they are anonymised."""
    return [RemoteRecogniser(detector, language, grpc.insecure_channel(detector.address, OPTIONS))]
