"""Detectors: their files and digests, their kinds, and their votes."""

import base64
import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts
from spacy.lang.en import English
from spacy.tokens import Doc, Span

from services.anonymization.adapters.detectors import (
    gliner_recognisers,
    predefined_recognisers,
    remote_recognisers,
    transformers_recognisers,
)
from services.anonymization.domain import Disagreement, Finding
from services.anonymization.policy.detectors import detectors_digest
from services.anonymization.recognise.detectors.definition import (
    DEFAULT,
    Detector,
    DetectorKind,
    load_detectors,
    parse_detectors,
)
from services.anonymization.recognise.detectors.engines import DetectorEngine, MakeRecognisers
from services.anonymization.recognise.detectors.model_digest import check_folder, check_model
from services.anonymization.recognise.detectors.spacy_entities import NamesEngine, SpacyEntities
from services.anonymization.recognise.detectors.votes import Ballot, combine
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.settings import Settings
from tailor.api.anonymization.v1 import detector_pb2, detector_pb2_grpc
from tailor.errors import FailedPrecondition, InvalidArgument, TailorError
from tailor.storage.folder_digest import digest_of

RULES = Detector("rules", DetectorKind.RULES)
MODEL = Detector("model", DetectorKind.SPACY, ("en",), "some_model", labels={"PERSON": "PERSON", "ORG": "CLIENT"})
RULES_TABLE = {"name": "rules", "kind": "rules"}
MODEL_TABLE = {"name": "model", "kind": "spacy", "model": "m", "languages": ["en"], "labels": {"PER": "PERSON"}}


def test_the_default_file_has_rules_for_every_language_and_an_english_model() -> None:
    detectors = load_detectors(DEFAULT)
    assert [detector.kind for detector in detectors][:2] == [DetectorKind.RULES, DetectorKind.SPACY]
    assert detectors[0].reads("xx") and detectors[1].reads("en") and not detectors[1].reads("de")


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"model": ""}, "detectors.1", "needs `model`"),
        ({"languages": []}, "detectors.1", "exactly one language"),
        ({"labels": {}}, "detectors.1", "needs `labels`"),
        ({"labels": {"PER": "person"}}, "detectors.1.labels.PER", "pattern"),
        ({"thresholds": {"PERSON": 1.5}}, "detectors.1.thresholds.PERSON", "less than or equal to 1"),
        ({"kind": "remote"}, "detectors.1", "needs `address`"),
        ({"unknown": 1}, "detectors.1.unknown", "not permitted"),
        ({"name": "rules"}, "detectors", "same name"),
    ],
)
def test_a_wrong_file_is_rejected_with_every_wrong_field(change: dict[str, object], field: str, problem: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_detectors({"detectors": [RULES_TABLE, MODEL_TABLE | change]})
    assert refused.value.reason == "INVALID_DETECTORS"
    assert problem in refused.value.field_violations[field]


def test_rules_for_every_language_are_needed() -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_detectors({"detectors": [MODEL_TABLE]})
    assert "must read every language" in refused.value.field_violations["detectors"]


def test_a_file_that_is_missing_or_is_not_toml_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[[detectors", encoding="utf-8")
    for name in ("broken.toml", "missing.toml"):
        with pytest.raises(InvalidArgument):
            load_detectors(tmp_path / name)


def test_agreement_raises_the_score_of_both() -> None:
    analysis = combine([Ballot(RULES, [Finding(0, 5, "PERSON", 0.5)]), Ballot(MODEL, [Finding(0, 5, "PERSON", 0.6)])])
    assert all(finding.score > 0.6 for finding in analysis.findings) and len(analysis.findings) == 2
    assert analysis.disagreements == ()


def test_a_lone_vote_counts_and_is_reported() -> None:
    analysis = combine([Ballot(RULES, []), Ballot(MODEL, [Finding(0, 5, "CLIENT", 0.5)])])
    assert analysis.findings == (Finding(0, 5, "CLIENT", 0.5),)
    assert analysis.disagreements == (Disagreement(0, 5, "CLIENT", ("model",)),)


def test_a_doubted_finding_does_not_count_but_is_reported() -> None:
    analysis = combine([Ballot(RULES, []), Ballot(MODEL, [Finding(0, 5, "CLIENT", 0.1)])])
    assert analysis.findings == ()
    assert analysis.disagreements == (Disagreement(0, 5, "CLIENT", ("model",)),)


def test_a_type_that_only_one_detector_knows_is_no_disagreement() -> None:
    analysis = combine([Ballot(RULES, [Finding(0, 9, "VEHICLE", 0.5)]), Ballot(MODEL, [])])
    assert analysis.findings and analysis.disagreements == ()


def test_a_certain_finding_is_no_disagreement() -> None:
    analysis = combine([Ballot(RULES, [Finding(0, 9, "PERSON", 0.95)]), Ballot(MODEL, [])])
    assert analysis.findings and analysis.disagreements == ()


def test_thresholds_are_by_type() -> None:
    strict = replace(MODEL, thresholds={"CLIENT": 0.9})
    found = [Finding(0, 5, "CLIENT", 0.8), Finding(7, 9, "PERSON", 0.4)]
    assert [finding.entity_type for finding in combine([Ballot(strict, found)]).findings] == ["PERSON"]


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


KEY = base64.b64encode(b"a" * 32).decode()
OTHER = base64.b64encode(b"b" * 32).decode()


def make_settings(**changes: object) -> Settings:
    return Settings(**{"quarantine_key": KEY, "vault_key": KEY, **changes})  # type: ignore[arg-type]


def test_changes_with_models_settings_and_files_of_detectors(tmp_path: Path) -> None:
    file = tmp_path / "detectors.toml"
    file.write_text("a = 1")
    first = detectors_digest(make_settings(), ["pydantic"], [file])
    file.write_text("a = 2")
    others = {
        detectors_digest(make_settings(), ["pydantic"], [file]),
        detectors_digest(make_settings(), ["pydantic"]),
        detectors_digest(make_settings(), []),
        detectors_digest(make_settings(phone_regions=("GB",)), ["pydantic"]),
    }
    assert len(others) == 4 and first not in others


def test_does_not_change_with_keys_addresses_and_the_policy(tmp_path: Path) -> None:
    elsewhere = make_settings(vault_key=OTHER, rpc_port=1, policy_file=tmp_path, lists_dir=tmp_path, log_level="DEBUG")
    assert detectors_digest(make_settings(), [""]) == detectors_digest(elsewhere, [])


def test_every_name_and_content_counts_and_compiled_files_do_not(tmp_path: Path) -> None:
    (tmp_path / "ner").mkdir()
    (tmp_path / "ner" / "model").write_bytes(b"weights")
    before = digest_of(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert digest_of(tmp_path) == before
    (tmp_path / "ner" / "model").write_bytes(b"weights2")
    assert digest_of(tmp_path) != before


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    del tmp_path
    with pytest.raises(FailedPrecondition, match=r"english.*no_such_model"):
        check_model("english", "no_such_model", "")


def test_a_model_of_other_files_is_refused() -> None:
    check_model("any", "email", "")
    with pytest.raises(FailedPrecondition, match="not the one"):
        check_model("any", "email", "0" * 64)


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    check_folder("pii", tmp_path, digest_of(tmp_path))
    check_folder("pii", tmp_path, "")
    with pytest.raises(FailedPrecondition, match=r"pii.*not the one"):
        check_folder("pii", tmp_path, "0" * 64)
    with pytest.raises(FailedPrecondition, match="must be a folder"):
        check_folder("pii", tmp_path / "missing", "")


NLP = English()
RECOGNISER = SpacyEntities(
    Detector("model", DetectorKind.SPACY, ("en",), labels={"PERSON": "PERSON", "ORG": "CLIENT"}),
    "en",
    Lexicon.load(["ask", "the", "mr"]),
)


def names(doc: Doc, *entities: Span) -> list[str]:
    """The names that are left of a model's entities."""
    artifacts = NlpArtifacts(list(entities), doc, [], [], NamesEngine(), "en")
    return [doc.text[each.start : each.end] for each in RECOGNISER.analyze(doc.text, [], artifacts)]


def test_marks_alone_are_no_name() -> None:
    doc = NLP("Ask — Anna Berg about it “…”")
    marks = [Span(doc, token.i, token.i + 1, "PERSON") for token in doc if not token.text.isalpha()]
    assert len(marks) == 4 and names(doc, *marks) == []
    assert names(doc, Span(doc, 1, 4, "PERSON")) == ["Anna Berg"]


@pytest.mark.parametrize("label", ["PERSON", "ORG"])
@pytest.mark.parametrize(
    "text",
    [
        "Ask — Anna Berg “…”",
        "… Mr. Berg’s",
        "- [Anna](#anna) → ✓",
        "A.\n\n•\n\nB. ©",
        "“”",
        "=== Anna ===",
        "\u200b Anna \u200b",
    ],
)
def test_whatever_a_model_marks_gives_a_name_of_the_words_that_it_touches_or_none(text: str, label: str) -> None:
    doc = NLP(text)
    for start, end in itertools.combinations(range(len(doc) + 1), 2):
        entity = Span(doc, start, end, label)
        words = [
            each[0]
            for each in re.finditer(r"\S+", text)
            if each.start() < entity.end_char and each.end() > entity.start_char
        ]
        for name in names(doc, entity):
            assert name and name in " ".join(words)
