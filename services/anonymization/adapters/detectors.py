"""The kinds of detectors that need heavy libraries or a network: Presidio's own recognisers, transformers, GLiNER, remote servers.

The libraries of transformers and GLiNER are imported when the first such detector is made.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import tldextract
from presidio_analyzer import EntityRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts

from services.anonymization.recognise.detectors.definition import Detector, DetectorKind
from services.anonymization.recognise.detectors.engines import MakeRecognisers
from services.anonymization.recognise.detectors.model_digest import check_folder
from tailor.api.anonymization.v1 import detector_pb2, detector_pb2_grpc
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.rpc.channel import OPTIONS, wire_errors

# The longest that a remote detector may take.
SECONDS = 20
# They read a language model's answers; a detector of kind `spacy` does that.
MODEL_READERS = ("SpacyRecognizer", "StanzaRecognizer", "TransformersRecognizer")


def transformers_recognisers(detector: Detector, language: str) -> Sequence[EntityRecognizer]:
    """One recogniser over a token classifier in a folder. Loading takes seconds; nothing is fetched.

    Raises FailedPrecondition (INVALID_MODEL) if the folder or the library is missing.
    """
    folder = _folder(detector)
    try:
        from presidio_analyzer.predefined_recognizers import HuggingFaceNerRecognizer

        return [
            HuggingFaceNerRecognizer(
                supported_entities=sorted(set(detector.labels.values())),
                name=detector.name,
                supported_language=language,
                model_name=folder,
                label_mapping=dict(detector.labels),
                threshold=min((detector.default_threshold, *detector.thresholds.values())),
            )
        ]
    except ImportError:
        raise _missing(detector, "transformers and torch") from None


def gliner_recognisers(detector: Detector, language: str) -> Sequence[EntityRecognizer]:
    """One recogniser over a GLiNER model in a folder. Loading takes seconds; nothing is fetched.

    Raises FailedPrecondition (INVALID_MODEL) if the folder or the library is missing.
    """
    folder = _folder(detector)
    try:
        from presidio_analyzer.predefined_recognizers import GLiNERRecognizer

        return [
            GLiNERRecognizer(
                name=detector.name,
                supported_language=language,
                entity_mapping=dict(detector.labels),
                model_name=folder,
                threshold=min((detector.default_threshold, *detector.thresholds.values())),
                local_files_only=True,
            )
        ]
    except ImportError:
        raise _missing(detector, "gliner and torch") from None


def _folder(detector: Detector) -> str:
    """The model's folder, with the files that `sha256` names: a hub's name would be fetched at every start, and could change."""
    check_folder(detector.name, Path(detector.model), detector.sha256)
    return detector.model


def _missing(detector: Detector, packages: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.INVALID_MODEL, f"The detector `{detector.name}` needs {packages}, which are not installed."
    )


def predefined_recognisers(detector: Detector, language: str) -> Sequence[EntityRecognizer]:
    """The recognisers that Presidio has for the language, and that find one of the detector's labels."""
    # The mail recogniser would wait for a list of domains from the network.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
    tldextract.extract = tldextract.tldextract.TLD_EXTRACTOR  # type: ignore[assignment]  # the module has a function that calls this object
    registry = RecognizerRegistry(supported_languages=[language])
    registry.load_predefined_recognizers(languages=[language])
    return [
        recogniser
        for recogniser in registry.recognizers
        if type(recogniser).__name__ not in MODEL_READERS and set(recogniser.supported_entities) & set(detector.labels)
    ]


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


MAKERS: Mapping[DetectorKind, MakeRecognisers] = {
    DetectorKind.PRESIDIO: predefined_recognisers,
    DetectorKind.TRANSFORMERS: transformers_recognisers,
    DetectorKind.GLINER: gliner_recognisers,
    DetectorKind.REMOTE: remote_recognisers,
}
