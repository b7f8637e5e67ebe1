"""Detectors over transformers and GLiNER. Their libraries are imported when the first such detector is made."""

from collections.abc import Sequence
from pathlib import Path

from presidio_analyzer import EntityRecognizer

from services.anonymization.recognise.detectors.definition import Detector
from services.anonymization.recognise.detectors.model_digest import check_folder
from tailor.errors import FailedPrecondition, Reason


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
