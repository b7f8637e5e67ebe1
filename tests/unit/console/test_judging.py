"""The judging page: what it shows, what it hides, and what is recorded."""

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.console.domain import MAX_EDIT_CHARS, GivenMark, Judgement, Role
from services.console.web.judging import MAX_SECOND_DRAFTS
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import FailedPrecondition, Reason
from tailor.values import JudgingCriterion
from tests.unit.console.fake_models import text
from tests.unit.console.judging_fakes import EDITED, FIRST, FOURTH, LONELY, SECOND, THIRD
from tests.unit.console.messages import ADAPTER, BASE, BASE_DRAFT, DRAFT, KEY, NAME
from tests.unit.console.world import PASSWORD, World, sign_in

PROMPT = ("user", "Write the <b>position</b> of Brightwater.")
FORM: dict[str, Any] = {"specialist": NAME, "draft": [FIRST, SECOND], "attempt": "a1", "action": "record"}


def make_world() -> World:
    world = World()
    world.registry.specialists[0].specialist.keep_drafts = True
    for draft_id, answer in ((FIRST, "# Position\n\nThe *cash* holds."), (SECOND, "# Position\n\nThe cash falls.")):
        world.inference.texts[draft_id] = text("KEPT", PROMPT, answer=answer)
        world.inference.texts[draft_id].draft_id = draft_id
    return world


def test_shows_prompt_and_both_drafts_with_their_differences_and_the_progress() -> None:
    world = make_world()
    page = world.signed_in(Role.EXPERT).get("/judge").text
    assert "Write the &lt;b&gt;position&lt;/b&gt; of Brightwater." in page
    assert "<h1>Position</h1>" in page and "The <em>cash</em> holds." in page
    assert "<mark>*cash* holds.</mark>" in page and "<mark>cash falls.</mark>" in page
    assert "12 of 40 judged. 9 ranked prompts; a round needs 42: 33 to go." in page
    assert world.judging.asked == [(NAME, KEY)]


def test_markdown_of_drafts_is_rendered_without_raw_html_and_without_images() -> None:
    world = make_world()
    answer = "<script>alert(1)</script> ![logo](https://elsewhere.example/x.png) [go](javascript:alert(1))"
    world.inference.texts[FIRST].answer = answer
    page = world.signed_in(Role.EXPERT).get("/judge").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>alert" not in page
    assert "<img src" not in page.replace('<img src="/static/icon.svg"', "") and 'href="javascript' not in page


def test_nothing_on_the_page_says_which_model_wrote_a_draft() -> None:
    world = make_world()
    for response in world.inference.texts.values():
        response.provenance.adapter_digest, response.provenance.base = ADAPTER, BASE
        response.provenance.generation, response.provenance.canary = 7, True
    page = world.signed_in(Role.EXPERT).get("/judge").text
    assert ADAPTER[:10] not in page and BASE not in page
    assert not [word for word in ("eneration", "anary", f"/drafts/{FIRST}") if word in page]


MARKS = (GivenMark(FIRST, "accuracy", 4), GivenMark(SECOND, "usefulness", 5))


@pytest.mark.parametrize(
    ("decision", "judgement"),
    [
        ("first", Judgement((FIRST, SECOND), MARKS, "Clear.")),
        ("second", Judgement((SECOND, FIRST), MARKS, "Clear.")),
        ("tie", Judgement((FIRST, SECOND), MARKS, "Clear.", outcome="tie")),
        ("both_bad", Judgement((FIRST, SECOND), MARKS, "Clear.", outcome="both_bad")),
    ],
)
def test_records_a_decision_and_shows_the_next_pair(decision: str, judgement: Judgement) -> None:
    world = make_world()
    marks = {"mark-0-accuracy": "4", "mark-1-usefulness": "5"}
    form = FORM | marks | {"decision": decision, "comment": " Clear. "}
    answer = world.signed_in(Role.EXPERT).post("/judge", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/judge?specialist={NAME}")
    assert list(world.registry.judgements.values()) == [judgement]
    assert world.registry.judged_by == [KEY]


@pytest.mark.parametrize(
    ("places", "judgement"),
    [
        (["3", "1", "2"], Judgement((SECOND, THIRD, FIRST))),
        (["2", "1", "2"], Judgement((SECOND, FIRST, THIRD), places=(1, 2, 2))),
        (["1", "3", "1"], Judgement((FIRST, THIRD, SECOND), places=(1, 1, 2))),
        (["2", "2", "2"], Judgement((FIRST, SECOND, THIRD), outcome="tie")),
    ],
)
def test_ranks_more_than_two_drafts_by_their_places(places: list[str], judgement: Judgement) -> None:
    world = make_world()
    form = FORM | {"draft": [FIRST, SECOND, THIRD], "decision": "ranked", "place": places}
    assert world.signed_in(Role.EXPERT).post("/judge", data=form).status_code == 303
    assert list(world.registry.judgements.values()) == [judgement]


def test_shows_every_draft_with_the_specialists_own_criteria() -> None:
    world = make_world()
    world.judging.criteria = (JudgingCriterion("tone", "Is it <kind>?", "blames", "plain & kind"),)
    world.judging.drafts = (FIRST, SECOND, THIRD)
    world.inference.texts[THIRD] = text("KEPT", PROMPT, answer="Third.")
    world.inference.texts[THIRD].draft_id = THIRD
    page = world.signed_in(Role.EXPERT).get("/judge").text
    assert page.count("<legend>Is it &lt;kind&gt;?</legend>") == 3 and "1: blames · 5: plain &amp; kind" in page
    assert 'name="mark-2-tone"' in page and "Draft 3" in page and page.count('name="place"') == 3
    assert "factually" not in page
    del world.inference.texts[THIRD]
    assert "cannot be read now" in world.signed_in(Role.EXPERT).get("/judge").text


def test_an_edit_of_the_best_of_several_drafts_has_a_place_of_its_own() -> None:
    judgement = Judgement.from_places((FIRST, SECOND, THIRD), (2, 1, 2), (), "").with_edit(EDITED)
    assert judgement == Judgement((EDITED, SECOND, FIRST, THIRD), places=(1, 2, 3, 3))


def trace_pair(world: World) -> None:
    """Let the registry know the drafts and the edited one."""
    for draft_id in (FIRST, SECOND, THIRD, FOURTH, EDITED):
        trace = registry_pb2.TraceResponse()
        trace.draft.draft_id, trace.draft.specialist = draft_id, NAME
        world.registry.traces[draft_id] = trace


EDIT = {"specialist": NAME, "drafts": [FIRST, SECOND], "places": [1, 2], "attempt": "a1", "text": "The cash rises."}
MARK = {"draft_id": SECOND, "criterion": "style", "mark": 4}


def test_an_edited_draft_is_better_than_its_draft_which_is_better_than_the_other() -> None:
    world = make_world()
    trace_pair(world)
    browser = world.signed_in(Role.EXPERT)
    body = EDIT | {"places": [2, 1], "marks": [MARK], "comment": " Warmer. "}
    assert browser.post("/api/judge/edit", json=body).status_code == 200
    assert world.inference.edits == [(SECOND, "The cash rises.")]
    assert list(world.registry.judgements.values()) == [
        Judgement((EDITED, SECOND, FIRST), (GivenMark(SECOND, "style", 4),), "Warmer.")
    ]
    assert world.registry.judged_by == [KEY]
    assert browser.post("/api/judge/edit", json=body).status_code == 200
    assert len(world.registry.judgements) == 1
    timed = body | {"attempt": "a2", "shown": time.time() - 300}
    assert browser.post("/api/judge/edit", json=timed).status_code == 200
    assert 300 <= [*world.registry.judgements.values()][-1].seconds < 330


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"places": [1, 1]}, 400),
        ({"places": [1]}, 400),
        ({"places": [0, 1]}, 400),
        ({"text": " "}, 400),
        ({"text": "x" * (MAX_EDIT_CHARS + 1)}, 400),
        ({"drafts": [FIRST, FIRST]}, 400),
        ({"marks": [MARK | {"mark": 6}]}, 400),
        ({"drafts": [LONELY, SECOND]}, 404),
        ({"specialist": "another"}, 404),
    ],
)
def test_refuses_an_invalid_edit_and_records_nothing(change: dict[str, object], status: int) -> None:
    world = make_world()
    trace_pair(world)
    browser = world.signed_in(Role.EXPERT, NAME)
    assert browser.post("/api/judge/edit", json=EDIT | change).status_code == status
    assert not world.registry.judgements and not world.inference.edits


def test_only_judges_edit_drafts_of_their_own_specialists() -> None:
    world = make_world()
    trace_pair(world)
    body = EDIT
    assert world.signed_in(Role.ENGINEER).post("/api/judge/edit", json=body).status_code == 403
    assert world.signed_in(Role.EXPERT, "another").post("/api/judge/edit", json=body).status_code == 404
    assert not world.inference.edits


def test_the_largest_edit_fits_a_request_in_any_script() -> None:
    world = make_world()
    trace_pair(world)
    body = EDIT | {"text": "\u6587" * MAX_EDIT_CHARS}
    content = json.dumps(body, ensure_ascii=False).encode()
    answer = world.signed_in(Role.EXPERT).post(
        "/api/judge/edit", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200


def test_a_repeated_form_is_recorded_once_and_a_later_attempt_again() -> None:
    world = make_world()
    browser = world.signed_in(Role.EXPERT)
    for attempt in ("a1", "a1", "a2"):
        shown = f"{time.time() - 40 - len(world.registry.judgements):.1f}"
        browser.post("/judge", data=FORM | {"decision": "first", "attempt": attempt, "shown": shown})
    assert len(world.registry.judgements) == 2


@pytest.mark.parametrize(("age", "low", "high"), [(40, 39.9, 70), (-3600, 0, 0), (None, 0, 0)])
def test_says_how_long_the_pair_was_shown(age: float | None, low: float, high: float) -> None:
    world = make_world()
    shown = {} if age is None else {"shown": f"{time.time() - age:.1f}"}
    assert world.signed_in(Role.EXPERT).post("/judge", data=FORM | {"decision": "tie"} | shown).status_code == 303
    (judgement,) = world.registry.judgements.values()
    assert low <= judgement.seconds <= high


def test_the_page_tells_when_it_was_shown() -> None:
    page = make_world().signed_in(Role.EXPERT).get("/judge").text
    found = re.search(r'name="shown" value="([0-9.]+)"', page)
    assert found and abs(time.time() - float(found[1])) < 60


def test_skips_a_pair_without_a_judgement() -> None:
    world = make_world()
    answer = world.signed_in(Role.EXPERT).post("/judge", data=FORM | {"action": "skip", "decision": "first"})
    assert answer.status_code == 303
    assert world.judging.skipped == [(NAME, FIRST, KEY)] and not world.registry.judgements


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"decision": "maybe"},
        {"decision": "ranked"},
        {"decision": "ranked", "place": ["1", ""]},
        {"decision": "ranked", "place": ["1", "3"]},
        {"decision": "first", "mark-0-accuracy": "6"},
        {"decision": "first", "mark-9-accuracy": "5"},
        {"decision": "first", "mark-0-accuracy": ["1"] * 41},
        {"decision": "first", "draft": [FIRST, FIRST]},
        {"decision": "first", "draft": [FIRST]},
        {"decision": "first", "draft": [FIRST, SECOND, THIRD, FOURTH, LONELY]},
        {"decision": "first", "comment": "x" * 4001},
        {"decision": "first", "action": "delete"},
    ],
)
def test_refuses_an_invalid_decision(form: dict[str, Any]) -> None:
    world = make_world()
    assert world.signed_in(Role.EXPERT).post("/judge", data=FORM | form).status_code == 400
    assert not world.registry.judgements


def test_has_a_second_draft_written_for_a_visitor_who_may_see_the_first() -> None:
    world = make_world()
    world.judging.incomplete, world.judging.waits = [LONELY], False
    browser = world.signed_in(Role.EXPERT)
    page = browser.get("/judge").text
    assert f'data-drafts="{LONELY}" data-waits="yes"' in page and "writes more drafts" in page
    assert browser.post("/api/judge/regenerate", json={"draft_id": DRAFT}).json() == {"draft_id": BASE_DRAFT}
    assert browser.post("/api/judge/regenerate", json={"draft_id": LONELY}).status_code == 404
    other = world.signed_in(Role.EXPERT, "another")
    assert other.post("/api/judge/regenerate", json={"draft_id": DRAFT}).status_code == 404
    assert world.inference.regenerated == [DRAFT]


def test_has_a_prompt_drawn_for_a_visitor_who_may_judge_the_specialist() -> None:
    world = make_world()
    world.judging.waits, world.judging.draw_prompt = False, True
    browser = world.signed_in(Role.EXPERT)
    page = browser.get("/judge").text
    assert f'data-draws="{NAME}" data-drafts="" data-waits="yes"' in page and "draws one from the specialist" in page
    assert browser.post("/api/judge/draw", json={"specialist": NAME}).json() == {"draft_id": FIRST}
    assert world.signed_in(Role.EXPERT, "another").post("/api/judge/draw", json={"specialist": NAME}).status_code == 404
    assert world.signed_in(Role.ENGINEER).post("/api/judge/draw", json={"specialist": NAME}).status_code == 403
    for name in ("", "x" * 64):
        assert browser.post("/api/judge/draw", json={"specialist": name}).status_code == 400
    assert world.synthetic.drawn == [NAME]
    world.judging.draw_prompt = False
    page = browser.get("/judge").text
    assert 'data-draws=""' in page and "Nothing waits for you." in page


def test_says_that_a_prompt_was_drawn_and_why_none_can_be() -> None:
    world = make_world()
    browser = world.signed_in(Role.EXPERT)
    assert "It was drawn" not in browser.get("/judge").text
    world.judging.drawn = True
    assert "No caller sent this prompt. It was drawn from the specialist" in browser.get("/judge").text

    def refuse(specialist: str) -> str:
        raise FailedPrecondition(Reason.NO_DATASET, "The specialist has no dataset of documents yet. Build it.")

    world.synthetic.write = refuse
    answer = browser.post("/api/judge/draw", json={"specialist": NAME})
    assert answer.status_code == 400
    assert "no dataset of documents yet" in answer.json()["message"] and answer.json()["reason"] == "NO_DATASET"


def test_only_a_few_drafts_are_written_at_a_time() -> None:
    world = make_world()
    browser = world.signed_in(Role.EXPERT)
    entered, go = threading.Semaphore(0), threading.Event()

    def write(draft_id: str) -> str:
        entered.release()
        assert go.wait(60)
        return BASE_DRAFT

    world.inference.write = write
    with ThreadPoolExecutor(MAX_SECOND_DRAFTS) as pool:
        body = {"draft_id": DRAFT}
        asked = [pool.submit(browser.post, "/api/judge/regenerate", json=body) for _ in range(MAX_SECOND_DRAFTS)]
        assert all(entered.acquire(timeout=60) for _ in asked)
        assert browser.post("/api/judge/regenerate", json=body).status_code == 429
        assert browser.post("/api/judge/draw", json={"specialist": NAME}).status_code == 429
        go.set()
        assert [answer.result().status_code for answer in asked] == [200] * MAX_SECOND_DRAFTS
    assert browser.post("/api/judge/regenerate", json=body).status_code == 200


def test_a_pair_whose_texts_cannot_be_read_can_be_skipped() -> None:
    world = make_world()
    world.inference.texts.clear()
    page = world.signed_in(Role.EXPERT).get("/judge").text
    assert "cannot be read now" in page and 'name="action" value="skip"' in page


def test_says_why_there_is_nothing_to_judge() -> None:
    world = make_world()
    world.judging.waits = False
    assert "Nothing waits for you." in world.signed_in(Role.EXPERT).get("/judge").text
    world.registry.specialists[0].specialist.keep_drafts = False
    assert "No specialist stores its drafts" in world.signed_in(Role.EXPERT).get("/judge").text
    by_password = world.browser()
    sign_in(by_password, PASSWORD)
    assert "Sign in as yourself" in by_password.get("/judge").text


def test_says_that_the_registry_does_not_answer() -> None:
    world = make_world()
    world.judging.down = True
    page = world.signed_in(Role.EXPERT).get("/judge").text
    assert "No answer from registry." in page and "Nothing waits" not in page


def test_a_specialist_that_the_visitor_may_not_use_is_unknown() -> None:
    world = make_world()
    browser = world.signed_in(Role.EXPERT, "another")
    assert browser.get(f"/judge?specialist={NAME}").status_code == 404
    for action in ("record", "skip"):
        form = FORM | {"decision": "first", "action": action}
        assert browser.post("/judge", data=form).status_code == 404
    assert not world.registry.judgements and not world.judging.skipped


def test_undo_is_offered_for_the_last_decision_and_once() -> None:
    world = make_world()
    browser = world.signed_in(Role.EXPERT)
    assert "Undo" not in browser.get("/judge").text
    world.judging.last_decision = "17"
    assert 'name="decision" value="17"' in browser.get("/judge").text
    form = {"specialist": NAME, "decision": "17"}
    assert browser.post("/judge/undo", data=form).headers["location"] == f"/judge?specialist={NAME}"
    assert world.judging.undone == [(NAME, "17", KEY)]
    assert "NOTHING_TO_UNDO" in browser.post("/judge/undo", data=form).text
    other = world.signed_in(Role.EXPERT, "another")
    assert other.post("/judge/undo", data=form).status_code == 404


def test_lists_own_judgements_with_their_drafts() -> None:
    world = make_world()
    tie = drafts_pb2.JUDGEMENT_OUTCOME_TIE
    world.judging.own = [
        drafts_pb2.JudgementRecorded(
            ranking=[SECOND, FIRST, THIRD],
            places=[1, 2, 2],
            marks=[drafts_pb2.DraftMark(draft_id=FIRST, criterion="style", mark=4)],
            comment="<Clear>",
        ),
        drafts_pb2.JudgementRecorded(equal_drafts=[FIRST, SECOND], outcome=tie),
        drafts_pb2.JudgementRecorded(ranking=[FIRST, SECOND]),
        drafts_pb2.JudgementRecorded(ranking=[EDITED, FIRST, SECOND], edited=True),
    ]
    browser = world.signed_in(Role.EXPERT)
    page = browser.get("/judge/own").text
    assert page.index(f"/drafts/{SECOND}") < page.index(f"/drafts/{FIRST}")
    assert "style 4" in page and page.count(" before ") == 1 and page.count(" and ") == 2
    assert "&lt;Clear&gt;" in page and "<td>tie</td>" in page and "Next page" in page
    last = browser.get(f"/judge/own?specialist={NAME}&token=2").text
    assert "Next page" not in last and "<td>edited</td>" in last and "<td>ranked</td>" in last
    assert world.judging.asked == [(NAME, KEY)] * 2
    world.judging.own.clear()
    assert "You have judged nothing here yet." in browser.get("/judge/own").text
    assert world.signed_in(Role.EXPERT, "another").get(f"/judge/own?specialist={NAME}").status_code == 404
    assert world.signed_in(Role.ENGINEER).get("/judge/own").status_code == 403
