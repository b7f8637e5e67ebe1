"""The kinds of detectors that need heavy libraries or a network: Presidio's own recognisers, transformers, GLiNER, remote servers."""

from collections.abc import Mapping

from services.anonymization.adapters.detectors.models import gliner_recognisers, transformers_recognisers
from services.anonymization.adapters.detectors.predefined import predefined_recognisers
from services.anonymization.adapters.detectors.remote import remote_recognisers
from services.anonymization.recognise.detectors.definition import DetectorKind
from services.anonymization.recognise.detectors.engines import MakeRecognisers

MAKERS: Mapping[DetectorKind, MakeRecognisers] = {
    DetectorKind.PRESIDIO: predefined_recognisers,
    DetectorKind.TRANSFORMERS: transformers_recognisers,
    DetectorKind.GLINER: gliner_recognisers,
    DetectorKind.REMOTE: remote_recognisers,
}
