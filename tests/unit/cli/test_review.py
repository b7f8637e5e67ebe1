"""`tailor review` against a fake service."""

import json
from pathlib import Path

import pytest

from tailor.api.anonymization.v1 import review_pb2
from tests.fakes.review import PASSAGE, TEXT, report
from tests.unit.cli.conftest import Services, Tailor


def test_draws_a_sample_with_its_size_and_seed(tailor: Tailor, services: Services) -> None:
    drawn = tailor("review", "sample", "--size", "200", "--seed", "7", "--min-per-stratum", "0", "--replace")
    assert drawn.code == 0 and "400 of 9,000 passages of 700 documents wait for review" in drawn.out
    (request,) = services.review.draws
    assert (request.size, request.seed, request.min_per_stratum, request.replace) == (200, 7, 0, True)
    assert request.HasField("min_per_stratum")


def test_shows_the_next_passage_with_its_types(tailor: Tailor, services: Services) -> None:
    shown = tailor("review", "next", "--kind", "disagreement")
    assert TEXT in shown.out and PASSAGE in shown.out and "PERSON, CLIENT, EMAIL_ADDRESS" in shown.out
    assert services.review.kinds == [review_pb2.PASSAGE_KIND_DISAGREEMENT]
    assert tailor("review", "next", "--kind", "other").code == 1
    services.review.waits = False
    assert "Nothing waits" in tailor("review", "next").out


def test_records_marks_a_clean_passage_and_a_skip(tailor: Tailor, services: Services) -> None:
    assert tailor("review", "decide", PASSAGE, "--mark", "25:40:PERSON", "--mark", "11:13:").code == 0
    assert tailor("review", "decide", PASSAGE, "--clean").code == 0
    assert tailor("review", "decide", PASSAGE, "--skip").out.strip() == "Skipped."
    marked, clean, skipped = services.review.decisions
    assert [(mark.start, mark.end, mark.entity_type) for mark in marked.marks] == [(25, 40, "PERSON"), (11, 13, "")]
    assert not clean.marks and not clean.skip and skipped.skip
    assert tailor("review", "undo").code == 0 and services.review.undone == [""]


@pytest.mark.parametrize("arguments", [(), ("--clean", "--skip"), ("--mark", "a:b"), ("--mark", "1:2:person")])
def test_refuses_a_decision_that_is_not_one(tailor: Tailor, services: Services, arguments: tuple[str, ...]) -> None:
    assert tailor("review", "decide", PASSAGE, *arguments).code == 1
    assert not services.review.decisions


def test_names_what_is_wrong_with_a_mark(tailor: Tailor) -> None:
    refused = tailor("review", "decide", PASSAGE, "--mark", "0:4:PERSON")
    assert refused.code == 1 and "INVALID_MARKS" in refused.err and "marks[0]: must start within" in refused.err


def test_reports_shares_with_intervals_and_what_is_not_known(tailor: Tailor) -> None:
    shown = tailor("review", "report").out
    assert "20 of 400 left: 5.0 % [3.1, 7.6]" in shown and "500 passages arrived since" in shown
    assert "PERSON 5.0 % [3.1, 7.6]" in shown and "0 of 5" in shown
    assert "2 passages of the sample and 1 disagreements wait" in shown


def test_reports_why_nothing_trains(tailor: Tailor, services: Services) -> None:
    limit = review_pb2.ResidualLimit(max_residual=0.05, message="The upper bound is over the limit of 5.0 %.")
    services.review.report = report(limit=limit)
    assert "Nothing trains: The upper bound is over the limit of 5.0 %." in tailor("review", "report").out
    services.review.report = report(limit=review_pb2.ResidualLimit(max_residual=0.1, met=True))
    assert "The limit is met." in tailor("review", "report").out


def test_reports_documents_that_were_masked_by_rules_only(tailor: Tailor, services: Services) -> None:
    assert "rules only" not in tailor("review", "report").out
    services.review.report = report(rules_only_documents={"sv": 3, "fi": 1})
    assert "masked by rules only: 1 in fi, 3 in sv." in tailor("review", "report").out


def test_says_that_nothing_is_known_without_a_sample(tailor: Tailor, services: Services) -> None:
    services.review.report = review_pb2.GetResidualReportResponse()
    assert "nobody knows what is left" in tailor("review", "report").out


def test_lists_rare_combinations_of_all_pages(tailor: Tailor) -> None:
    items = tailor("review", "combinations", "--output=json").document["combinations"]
    assert [item["document_id"] for item in items] == ["doc_0", "doc_1"]


def test_writes_a_statement_and_verifies_it(tailor: Tailor, tmp_path: Path) -> None:
    file = tmp_path / "statement.json"
    assert tailor("review", "statement", "--out", str(file)).code == 0
    content = json.loads(file.read_text())
    assert content["signature"] == "01" and content["public_key"] == "02"
    assert "Valid" in tailor("review", "verify", str(file)).out
    file.write_text(json.dumps(content | {"body": "{}"}))
    assert "INVALID_STATEMENT" in tailor("review", "verify", str(file)).err
    file.write_text("no statement")
    assert "INVALID_STATEMENT" in tailor("review", "verify", str(file)).err


def test_drops_a_term_without_repeating_it(tailor: Tailor, services: Services) -> None:
    dropped = tailor("review", "drop", "gregor herrmann")
    assert dropped.code == 0 and services.review.terms == ["gregor herrmann"]
    assert "gregor" not in dropped.out + dropped.err
