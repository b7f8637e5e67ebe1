"""Detectors over Presidio's own recognisers, a folder with a model, and a server of the company's."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from presidio_analyzer.nlp_engine import NerModelConfiguration

from services.anonymization.adapters.detectors import (
    gliner_recognisers,
    predefined_recognisers,
    remote_recognisers,
    transformers_recognisers,
)
from services.anonymization.recognise.detectors.definition import Detector, DetectorKind
from services.anonymization.recognise.detectors.engines import DetectorEngine, MakeRecognisers
from services.anonymization.recognise.detectors.spacy_entities import NamesEngine
from tailor.api.anonymization.v1 import detector_pb2, detector_pb2_grpc
from tailor.errors import FailedPrecondition, TailorError

TEXT = "The card of Ngozi Okafor is 4111 1111 1111 1111."


class HouseDetector(detector_pb2_grpc.DetectorServiceServicer):
    """Finds one name, and a place outside of the text if it is told to."""

    def __init__(self) -> None:
        self.end = 0

    def Detect(self, request: detector_pb2.DetectRequest, context: grpc.ServicerContext) -> detector_pb2.DetectResponse:
        del context
        start = request.text.index("Ngozi")
        value = detector_pb2.DetectedValue(start=start, end=self.end or start + 12, label="NAME", score=0.8)
        other = detector_pb2.DetectedValue(start=0, end=3, label="COLOUR", score=0.9)
        return detector_pb2.DetectResponse(values=[value, other])


@pytest.fixture
def house() -> Iterator[tuple[HouseDetector, str]]:
    server, servicer = grpc.server(ThreadPoolExecutor(1)), HouseDetector()
    detector_pb2_grpc.add_DetectorServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None)


def engine(detector: Detector, make: MakeRecognisers) -> DetectorEngine:
    model = NamesEngine(
        models=[{"lang_code": "en", "model_name": ""}],
        ner_model_configuration=NerModelConfiguration(labels_to_ignore=[]),
    )
    model.load()
    return DetectorEngine(detector, "en", make(detector, "en"), model)


def test_a_server_of_the_company_finds_values_by_its_labels(house: tuple[HouseDetector, str]) -> None:
    detector = Detector("house", DetectorKind.REMOTE, ("en",), address=house[1], labels={"NAME": "PERSON"})
    ((finding,),) = engine(detector, remote_recognisers).find([TEXT])
    assert (finding.entity_type, TEXT[finding.start : finding.end], finding.score) == ("PERSON", "Ngozi Okafor", 0.8)


def test_a_server_that_answers_wrongly_or_not_stops_the_document(house: tuple[HouseDetector, str]) -> None:
    servicer, address = house
    detector = Detector("house", DetectorKind.REMOTE, ("en",), address=address, labels={"NAME": "PERSON"})
    servicer.end = 10_000
    with pytest.raises(TailorError, match="outside of the text"):
        engine(detector, remote_recognisers).find([TEXT])
    nobody = Detector("nobody", DetectorKind.REMOTE, ("en",), address="127.0.0.1:1", labels={"NAME": "PERSON"})
    with pytest.raises(TailorError):
        engine(nobody, remote_recognisers).find([TEXT])


def test_presidios_recognisers_are_a_detector_with_our_types() -> None:
    detector = Detector("presidio", DetectorKind.PRESIDIO, ("en",), labels={"CREDIT_CARD": "CREDIT_CARD"})
    ((finding,),) = engine(detector, predefined_recognisers).find([TEXT])
    assert (finding.entity_type, TEXT[finding.start : finding.end]) == ("CREDIT_CARD", "4111 1111 1111 1111")


@pytest.mark.parametrize("make", [transformers_recognisers, gliner_recognisers])
def test_a_models_folder_must_exist(make: MakeRecognisers) -> None:
    detector = Detector("model", DetectorKind.TRANSFORMERS, ("en",), "hub/name", labels={"PER": "PERSON"})
    with pytest.raises(FailedPrecondition, match="must be a folder"):
        make(detector, "en")
