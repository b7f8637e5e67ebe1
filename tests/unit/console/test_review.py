"""The review: its pages, and what data protection decides there."""

import json
import re

import pytest

from services.console.domain import Role
from services.console.review import split_passage, type_keys
from tailor.api.anonymization.v1 import replaced_pb2, review_pb2
from tests.fakes.review import PASSAGE, TEXT, passage, report
from tests.unit.console.messages import KEY
from tests.unit.console.world import World

NAME = TEXT.index("gregor")


def test_shows_the_passage_with_surrogates_and_disagreements_apart() -> None:
    page = World().signed_in(Role.DATA_PROTECTION).get("/review").text
    assert f'<span class="replaced" data-start="{TEXT.index("Ward")}"' in page
    assert f'<span class="word doubtful" data-start="{NAME}" data-end="{NAME + 6}"' in page
    assert '<span class="context" data-start="0" data-end="6">Before</span>' in page
    assert "surrogates and masks" in page and "Detectors disagree" in page
    assert '<button type="button" data-type="PERSON" data-key="1">' in page


def test_pieces_are_the_whole_text_at_offsets_in_code_points() -> None:
    text = "😀 Ask José-María's n.okafor@x.example, (now)\n\nthen."
    pieces = list(split_passage(passage(text=text, start=2, end=20, stretches=[])))
    assert "".join(piece.text for piece in pieces) == text
    assert all(text[piece.start : piece.end] == piece.text for piece in pieces)
    assert {"José-María's", "n.okafor@x.example", "("} <= {piece.text for piece in pieces}
    assert {piece.kind for piece in pieces if piece.start < 2} == {"context"}


def test_every_type_can_be_marked_and_the_first_have_keys() -> None:
    kinds = [f"TYPE_{number}" for number in range(60)]
    keys = type_keys(passage(entity_types=kinds))
    assert [kind for _, kind in keys] == kinds
    given = [key for key, _ in keys if key]
    assert len(given) == len(set(given)) and not set("nsu") & set(given)


def test_records_marks_with_the_reviewers_key_and_shows_the_next() -> None:
    world = World()
    browser = world.signed_in(Role.DATA_PROTECTION)
    marks = json.dumps([[NAME, NAME + 15, "PERSON"], [1, 3, ""]])
    answer = browser.post("/review", data={"passage_id": PASSAGE, "decision": "save", "marks": marks, "kind": "sample"})
    assert answer.status_code == 303 and answer.headers["location"] == "/review?kind=sample"
    (decision,) = world.review.decisions
    found = [(mark.start, mark.end, mark.entity_type) for mark in decision.marks]
    assert found == [(NAME, NAME + 15, "PERSON"), (1, 3, "")] and decision.reviewer == KEY
    browser.post("/review", data={"passage_id": PASSAGE, "decision": "skip", "marks": marks})
    assert world.review.decisions[1].skip and not world.review.decisions[1].marks


@pytest.mark.parametrize(
    "form",
    [
        {"passage_id": "psg_1"},
        {"decision": "maybe"},
        {"marks": "nonsense"},
        {"marks": "[[1, 2]]"},
        {"marks": '[[5, 2, "PERSON"]]'},
        {"marks": json.dumps([[n, n + 1, "PERSON"] for n in range(51)])},
        {"marks": "x" * 10_001},
    ],
)
def test_refuses_a_malformed_decision(form: dict[str, str]) -> None:
    world = World()
    data = {"passage_id": PASSAGE, "decision": "save", "marks": "[]"} | form
    assert world.signed_in(Role.DATA_PROTECTION).post("/review", data=data).status_code == 400
    assert not world.review.decisions


def test_undoes_the_last_decision_and_says_if_there_is_none() -> None:
    world = World()
    browser = world.signed_in(Role.DATA_PROTECTION)
    assert browser.post("/review/undo", data={"kind": "sample"}).headers["location"] == "/review?kind=sample"
    assert world.review.undone == [KEY]
    assert "NOTHING_TO_UNDO" in browser.post("/review/undo").text


def test_says_that_nothing_waits() -> None:
    world = World()
    world.review.waits = False
    browser = world.signed_in(Role.DATA_PROTECTION)
    assert "Nothing waits for review." in browser.get("/review?kind=disagreement").text
    assert world.review.kinds == [review_pb2.PASSAGE_KIND_DISAGREEMENT]
    assert browser.get("/review?kind=other").status_code == 400


def test_draws_a_sample() -> None:
    world = World()
    browser = world.signed_in(Role.DATA_PROTECTION)
    browser.post("/review/sample", data={"size": "200", "replace": "true"})
    (draw,) = world.review.draws
    assert (draw.size, draw.replace, draw.reviewer) == (200, True, KEY)
    assert browser.post("/review/sample", data={"size": "5001"}).status_code == 400


def test_the_report_claims_what_was_measured_and_no_more() -> None:
    world = World()
    page = world.signed_in(Role.ENGINEER).get("/residual").text
    assert "20 of 400 left: 5.0 % [3.1, 7.6]" in page and "500 passages arrived since" in page
    assert "none of 5 reviewed" in page and "Nothing trains" not in page
    world.review.report = review_pb2.GetResidualReportResponse()
    assert "nobody knows what is left" in world.signed_in(Role.ENGINEER).get("/residual").text


def test_the_report_names_documents_that_were_masked_by_rules_only() -> None:
    world = World()
    assert "rules only" not in world.signed_in().get("/residual").text
    world.review.report = report(rules_only_documents={"sv": 3, "fi": 1})
    assert "masked by rules only: 1 in fi, 3 in sv." in world.signed_in().get("/residual").text


def test_the_report_says_why_nothing_trains() -> None:
    world = World()
    message = "The upper bound is over the limit of 5.0 %."
    world.review.report = report(limit=review_pb2.ResidualLimit(max_residual=0.05, message=message))
    page = world.signed_in().get("/residual").text
    assert "Nothing trains." in page and message in page
    world.review.report = report(limit=review_pb2.ResidualLimit(max_residual=0.1, met=True))
    assert "The limit of 10.0 % is met." in world.signed_in().get("/residual").text


def test_rare_combinations_name_documents_and_types_and_only_data_protection_reads_on() -> None:
    world = World()
    page = world.signed_in(Role.OPERATOR).get("/residual").text
    assert "job title" in page and "doc_0" in page and "/residual/doc_0/3" not in page
    browser = world.signed_in(Role.DATA_PROTECTION)
    assert 'href="/residual/doc_0/3"' in browser.get("/residual").text
    shown = re.sub(r"<[^>]+>", "", browser.get("/residual/doc_0/3").text)
    assert TEXT in shown
    assert browser.get("/residual/doc_0/4").status_code == 404


def test_the_flow_claims_nothing_and_leads_to_what_was_measured() -> None:
    browser = World().signed_in(Role.ENGINEER)
    page = browser.get("/flow").text
    assert "no personal data" not in page and 'href="/residual">what is left?' in page
    assert 'href="/residual">What was left' in browser.get("/audit").text


def test_a_statement_is_a_file() -> None:
    answer = World().signed_in(Role.DATA_PROTECTION).post("/residual/statement")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert json.loads(answer.text) == {"body": '{"kind": "statement"}', "signature": "01", "public_key": "02"}


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.DATA_PROTECTION])
def test_other_roles_review_nothing(role: Role) -> None:
    world = World()
    browser = world.signed_in(role)
    for path in ("/review", "/residual/doc_0/3"):
        assert browser.get(path).status_code == 403, path
    for path in ("/review", "/review/undo", "/review/sample", "/residual/statement"):
        data = {"passage_id": PASSAGE, "decision": "save"}
        assert browser.post(path, data=data).status_code == 403, path
    assert not world.review.decisions and not world.review.draws and not world.review.undone


def test_a_forged_form_decides_nothing() -> None:
    world = World()
    browser = world.signed_in(Role.DATA_PROTECTION)
    del browser.headers["x-csrf-token"]
    assert browser.post("/review", data={"passage_id": PASSAGE, "decision": "save"}).status_code == 403
    assert not world.review.decisions


def test_names_the_service_that_does_not_answer() -> None:
    world = World()
    world.review.down = True
    browser = world.signed_in(Role.DATA_PROTECTION)
    for path in ("/review", "/residual"):
        assert "No answer from anonymization." in browser.get(path).text


QUERY = {"entity_type": "PERSON", "surrogate": "winters"}


def test_what_is_replaced_most_is_listed_by_surrogates_and_only_data_protection_reads_on() -> None:
    page = World().signed_in(Role.ENGINEER).get("/replaced").text
    assert "winters" in page and "SQL" not in page and "/replaced/string" not in page
    browser = World().signed_in(Role.DATA_PROTECTION)
    assert "/replaced/string?entity_type=PERSON&amp;surrogate=winters" in browser.get("/replaced").text
    assert World().signed_in(Role.OPERATOR).get("/replaced/string", params=QUERY).status_code == 403


def test_data_protection_sees_a_string_in_the_place_of_its_surrogate() -> None:
    world = World()
    browser = world.signed_in(Role.DATA_PROTECTION)
    page = browser.get("/replaced/string", params=QUERY)
    assert "EXEC <mark>SQL</mark> SELECT" in page.text and "60 times in 12 documents" in page.text
    assert page.headers["cache-control"] == "no-store" and [
        (seen.surrogate, seen.reviewer) for seen in world.replaced.seen
    ] == [("winters", KEY)]
    assert browser.get("/replaced/string", params=QUERY | {"surrogate": "nobody"}).status_code == 404


def test_an_allowed_string_is_replayed_and_a_kept_one_is_not() -> None:
    world = World()
    browser = world.signed_in(Role.DATA_PROTECTION)
    assert "PLACES_NOT_SEEN" in browser.post("/replaced", data=QUERY | {"decision": "allow"}).text
    browser.get("/replaced/string", params=QUERY)
    answer = browser.post("/replaced", data=QUERY | {"decision": "allow"})
    assert answer.headers["location"] == "/replaced?notice=allowed"
    assert (
        world.ingestion.replays == [("b" * 64, KEY)]
        and "a replay brings that" in browser.get("/replaced?notice=allowed").text
    )
    world.ingestion.replay_runs = True
    answer = browser.post("/replaced", data=QUERY | {"decision": "allow"})
    assert answer.headers["location"] == "/replaced?notice=allowed-later"
    assert browser.post("/replaced", data=QUERY | {"decision": "keep"}).headers["location"] == "/replaced?notice=kept"
    allowed, kept = replaced_pb2.REPLACED_DECISION_ALLOWED, replaced_pb2.REPLACED_DECISION_KEPT
    assert [item.decision for item in world.replaced.decisions] == [allowed, allowed, kept]
    assert len(world.ingestion.replays) == 1
    assert world.signed_in(Role.OPERATOR).post("/replaced", data=QUERY | {"decision": "allow"}).status_code == 403
