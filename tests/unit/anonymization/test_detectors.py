"""Reading a detectors file, and combining the votes of detectors."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.anonymization.domain import Disagreement, Finding
from services.anonymization.recognise.detectors.definition import (
    DEFAULT,
    Detector,
    DetectorKind,
    load_detectors,
    parse_detectors,
)
from services.anonymization.recognise.detectors.votes import Ballot, combine
from tailor.errors import InvalidArgument

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
