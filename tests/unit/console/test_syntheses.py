"""Syntheses: their pages, and what experts decide there."""

import pytest

from services.console.domain import Role
from tailor.api.synthetic.v1 import synthesis_pb2
from tests.unit.console.fake_rows import sample, synthesis
from tests.unit.console.messages import NAME, SYNTHESIS_ID, edit
from tests.unit.console.world import World

PAGE = f"/syntheses/{SYNTHESIS_ID}"


def test_lists_syntheses_with_their_counts_and_cost() -> None:
    page = World().signed_in(Role.ENGINEER).get("/syntheses").text
    assert f'href="{PAGE}"' in page and "risk-assessment" in page
    assert ">41<" in page and ">0.61<" in page and "61,000" in page


def test_shows_samples_refusals_and_the_reason_of_a_pause() -> None:
    world = World()
    paused = edit(
        synthesis(),
        state=synthesis_pb2.SYNTHESIS_STATE_PAUSED,
        reason="TEACHER_KEY_REFUSED",
        message="Set a valid key.",
    )
    world.syntheses.syntheses = [paused]
    page = world.signed_in(Role.EXPERT).get(PAGE).text
    assert "TEACHER_KEY_REFUSED" in page and "Set a valid key." in page and "near duplicate" in page
    # Texts of rows are text, not markup.
    assert "Assess &lt;b&gt;the ferry&lt;/b&gt;." in page and "The ferry is a low risk." in page


def test_an_expert_accepts_and_rejects_samples() -> None:
    world = World()
    browser = world.signed_in(Role.EXPERT)
    assert f'action="{PAGE}/review"' in browser.get(PAGE).text
    answer = browser.post(f"{PAGE}/review", data={"row_id": "row_1", "accept": "true", "state": "pending"})
    assert answer.headers["location"] == f"{PAGE}?state=pending"
    browser.post(f"{PAGE}/review", data={"row_id": "row_2", "accept": "false"})
    assert world.syntheses.decisions == [(SYNTHESIS_ID, "row_1", True), (SYNTHESIS_ID, "row_2", False)]


def test_a_sample_offers_only_the_decision_that_changes_it() -> None:
    world = World()
    world.syntheses.samples = [sample("row_2", "accepted")]
    page = world.signed_in(Role.EXPERT).get(PAGE).text
    assert ">Reject<" in page and ">Accept<" not in page
    world.syntheses.samples = [sample("refused_0_0", "refused", reason="off_format", completion="", prompt="")]
    page = world.signed_in(Role.EXPERT).get(PAGE).text
    assert "off format" in page and ">Reject<" not in page and ">Accept<" not in page


def test_filters_samples_by_state() -> None:
    browser = World().signed_in(Role.EXPERT)
    assert browser.get(f"{PAGE}?state=accepted").text.count(">Answer<") == 1
    assert browser.get(PAGE).text.count(">Answer<") == 2
    assert browser.get(f"{PAGE}?state=nonsense").status_code == 400


@pytest.mark.parametrize("role", [Role.ENGINEER, Role.CALLER, Role.DATA_PROTECTION])
def test_other_roles_decide_nothing(role: Role) -> None:
    world = World()
    browser = world.signed_in(role)
    assert browser.post(f"{PAGE}/review", data={"row_id": "row_1", "accept": "true"}).status_code == 403
    assert not world.syntheses.decisions
    if role is Role.ENGINEER:
        assert f'action="{PAGE}/review"' not in browser.get(PAGE).text


def test_a_forged_form_decides_nothing() -> None:
    world = World()
    browser = world.signed_in(Role.EXPERT)
    del browser.headers["x-csrf-token"]
    assert browser.post(f"{PAGE}/review", data={"row_id": "row_1", "accept": "true"}).status_code == 403
    assert not world.syntheses.decisions


def test_a_synthesis_of_another_specialist_is_not_there() -> None:
    world = World()
    browser = world.signed_in(Role.EXPERT, "letters")
    assert browser.get(PAGE).status_code == 404 and NAME not in browser.get("/syntheses").text
    assert browser.post(f"{PAGE}/review", data={"row_id": "row_1", "accept": "true"}).status_code == 404
    assert not world.syntheses.decisions


def test_names_the_service_that_does_not_answer() -> None:
    world = World()
    world.syntheses.down = True
    browser = world.signed_in()
    for path in ("/syntheses", PAGE):
        assert "No answer from synthetic." in browser.get(path).text
