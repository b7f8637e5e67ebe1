"""What operators change and decide on pages."""

import pytest

from services.console import operations
from services.console.domain import Role, Visitor
from services.console.web.definition_form import DefinitionForm, add_proposals, to_definition, to_form
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import Aborted, InvalidArgument, Reason, Unavailable
from tests.evaluations import make_estimate
from tests.unit.console.messages import ADAPTER, KEY, NAME, STAMP, adapter, edit, specialist
from tests.unit.console.world import World

REFUSED = adapter(
    decision=registry_pb2.DECISION_REFUSED,
    state=registry_pb2.ADAPTER_STATE_REFUSED,
    reasons=["rougeL gains +0.001 over base"],
    advice="To change the gate: `tailor specialist update engagement-reports.toml`",
)
WHOLE = models_pb2.SpecialistChanged(
    name=NAME,
    revision=2,
    base="tiny",
    promotion=models_pb2.PROMOTION_MODE_APPROVAL,
    sampling=models_pb2.SamplingDefaults(
        temperature=0.0, top_p=0.9, max_tokens=200, thinking=common_pb2.THINKING_HIDDEN
    ),
    gate=models_pb2.Gate(
        primary=models_pb2.PrimaryMetric(metric="house", min_gain=0.02),
        guards=[models_pb2.Guard(metric="rougeL", margin=0.01)],
        beat=["base", "prompt"],
        min_rows=30,
        max_forgetting=0.0,
    ),
    metrics=[
        models_pb2.MetricDefinition(name="house", kind="terms", parameters_json='{"terms": ["a"]}'),
        models_pb2.MetricDefinition(name="rougeL", kind="rougeL"),
    ],
    stages=["sft", "dpo"],
    recipes={"dpo": "gentle"},
    rebuild=models_pb2.RebuildPolicy(min_new_items=3, min_ranked_prompts=8),
    evaluation=models_pb2.EvaluationPolicy(
        max_rows=50,
        few_shot=0,
        guidelines="Be brief.\nBe kind.",
        optimize_prompt=True,
        suites=["safety"],
        criteria=[models_pb2.Criterion(name="tone", description="Sounds like a colleague.")],
    ),
)


def test_a_form_that_nobody_changed_is_the_same_definition() -> None:
    assert to_definition(to_form(WHOLE), WHOLE) == WHOLE
    empty = models_pb2.SpecialistChanged(name=NAME, revision=1, promotion=models_pb2.PROMOTION_MODE_AUTOMATIC)
    assert to_definition(to_form(empty), empty) == edit(
        empty, gate=models_pb2.Gate(primary=models_pb2.PrimaryMetric()), evaluation={}
    )


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("min_rows", "many"),
        ("temperature", "warm"),
        ("guards", "rougeL"),
        ("recipes", "dpo"),
        ("min_ranked_prompts", "few"),
        ("criteria", "tone"),
        ("metrics", "house terms {x"),
        ("metrics", "a b c"),
    ],
)
def test_a_field_that_cannot_be_read_is_named(field: str, text: str) -> None:
    form = DefinitionForm(**{**to_form(WHOLE).model_dump(), field: text})
    with pytest.raises(InvalidArgument) as raised:
        to_definition(form, WHOLE)
    assert list(raised.value.field_violations) == [field]


def test_the_form_previews_and_then_saves() -> None:
    world = World()
    with world.signed_in() as browser:
        page = browser.get(f"/specialists/{NAME}/edit").text
        assert 'name="min_gain" value="0.02"' in page and ">Save<" not in page
        form = {**to_form(world.registry.specialists[0].specialist).model_dump(), "min_rows": "40"}
        shown = browser.post(f"/specialists/{NAME}/preview", data=form)
        assert "gate.min_rows" in shown.text and ">Save<" in shown.text and "Nothing is saved yet" in shown.text
        saved = browser.post(f"/specialists/{NAME}/edit", data=form)
    assert (saved.status_code, saved.headers["location"]) == (303, f"/specialists/{NAME}?notice=updated")
    (previewed, only), (definition, only_too) = world.registry.updates
    assert (only, only_too, definition.gate.min_rows, previewed) == (True, False, 40, definition)
    assert definition.house_terms == world.registry.specialists[0].specialist.house_terms


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Aborted(Reason.REVISION_MOVED, "Current revision is 7. Reload and retry."), "Current revision is 7"),
        (
            InvalidArgument(Reason.INVALID_SPECIALIST, "Invalid.", field_violations={"min_rows": "must be 0 or more"}),
            "must be 0 or more",
        ),
    ],
)
def test_a_form_that_is_refused_keeps_what_was_typed(error: Aborted | InvalidArgument, text: str) -> None:
    world = World()
    world.registry.update_error = error
    with world.signed_in() as browser:
        form = {**to_form(world.registry.specialists[0].specialist).model_dump(), "min_rows": "-3"}
        answer = browser.post(f"/specialists/{NAME}/edit", data=form)
    assert answer.status_code == error.code.http_status
    assert text in answer.text and 'name="min_rows" value="-3"' in answer.text


def test_only_operators_may_change_or_delete() -> None:
    with World().signed_in(Role.ENGINEER) as browser:
        assert browser.get(f"/specialists/{NAME}/edit").status_code == 403
        assert browser.post(f"/specialists/{NAME}/delete", data={"reason": ""}).status_code == 403
        assert browser.post("/approve", data={"adapter_digest": ADAPTER}).status_code == 403


def test_deletes_a_specialist_and_says_what_stays() -> None:
    world = World()
    with world.signed_in() as browser:
        deleted = browser.post(f"/specialists/{NAME}/delete", data={"reason": "merged"})
        assert "adapters and drafts stay" in browser.get(deleted.headers["location"]).text
    assert world.registry.operator_decisions == [("delete", NAME, "merged", KEY)]


def test_a_refused_adapter_shows_what_to_do_and_can_be_overridden_with_a_reason() -> None:
    world = World()
    world.registry.adapters = [REFUSED]
    with world.signed_in() as browser:
        page = browser.get(f"/evaluations/{ADAPTER}").text
        assert '<code class="command">tailor specialist update engagement-reports.toml</code>' in page
        assert "Override the gate" in page
        without = browser.post(
            "/override", data={"specialist": NAME, "adapter_digest": ADAPTER, "expected_generation": "1"}
        )
        done = browser.post(
            "/override",
            data={"specialist": NAME, "adapter_digest": ADAPTER, "expected_generation": "1", "reason": "needed today"},
        )
    assert (without.status_code, done.status_code) == (400, 303)
    assert world.registry.operator_decisions == [("override", ADAPTER, "needed today", KEY)]


def test_an_override_is_shown_where_the_adapter_is() -> None:
    world = World()
    decision = registry_pb2.OperatorDecision(
        kind=registry_pb2.OPERATOR_DECISION_KIND_OVERRIDE,
        specialist=NAME,
        adapter_digest=ADAPTER,
        key_id="key_1",
        reason="needed today",
        verdict=registry_pb2.DECISION_REFUSED,
        create_time=STAMP,
    )
    world.registry.adapters = [edit(REFUSED, state=registry_pb2.ADAPTER_STATE_OVERRIDDEN, operator_decision=decision)]
    world.registry.records = [decision]
    with world.signed_in() as browser:
        for path in ("/adapters", f"/evaluations/{ADAPTER}", "/audit"):
            page = browser.get(path).text
            assert "needed today" in page and "key_1" in page, path
        assert ">overridden</span>" in browser.get("/adapters").text


def test_approvals_show_the_figures_and_both_buttons() -> None:
    world = World()
    world.registry.waiting = [adapter(state=registry_pb2.ADAPTER_STATE_WAITING_FOR_APPROVAL)]
    with world.signed_in() as browser:
        page = browser.get("/approvals").text
        assert "waiting for approval" in page and ">Approve<" in page and ">Decline<" in page
        assert "+0.920 (+0.915 to +0.925)" in page
        browser.post("/approve", data={"adapter_digest": ADAPTER, "reason": "good"})
        browser.post("/decline", data={"adapter_digest": ADAPTER, "reason": "too long"})
    assert world.registry.operator_decisions == [
        ("approve", ADAPTER, "good", KEY),
        ("decline", ADAPTER, "too long", KEY),
    ]


def test_the_leaderboard_shows_adapters_and_prompts_and_pins_them() -> None:
    world = World()
    tuned = registry_pb2.LeaderboardEntry(rank=1, model="candidate", adapter_digest=ADAPTER, rows=48)
    tuned.state = registry_pb2.ADAPTER_STATE_SERVING
    prompt = registry_pb2.LeaderboardEntry(rank=2, model="few_shot", rows=48, pinned=True)
    for entry in (tuned, prompt):
        entry.scores["rougeL"].CopyFrom(make_estimate(0.3))
    world.registry.leaderboard = registry_pb2.GetLeaderboardResponse(metric="rougeL", entries=[tuned, prompt])
    with world.signed_in() as browser:
        page = browser.get(f"/specialists/{NAME}/leaderboard").text
        assert "few shot" in page and "0.300 (0.295 to 0.305)" in page and ">Unpin<" in page and ">Pin<" in page
        browser.post(f"/specialists/{NAME}/pin", data={"entry": ADAPTER, "pinned": "true"})
    assert world.registry.operator_decisions == [("pin", NAME, ADAPTER)]


def test_a_comparison_shows_words_that_differ_and_escapes_them() -> None:
    world = World()
    with world.signed_in() as browser:
        page = browser.get(f"/evaluations/compare?first={ADAPTER}:base&second={ADAPTER}&task=report").text
    assert "<del>old </del><ins>new </ins>" in page
    assert "&lt;b&gt;answer&lt;/b&gt;" in page and "<b>answer</b>" not in page
    (request,) = world.evaluation.compared
    assert (request.first.model, request.second.model, request.task) == ("base", "", "report")


def test_a_comparison_of_an_adapter_that_the_visitor_may_not_see_is_not_found() -> None:
    world = World()
    world.registry.specialists = [specialist("other")]
    with world.signed_in(Role.ENGINEER, "other") as browser:
        assert browser.get(f"/evaluations/compare?first={ADAPTER}&second={ADAPTER}").status_code == 404


def test_nothing_is_decided_or_compared_while_it_is_unknown_whose_adapter_it_is() -> None:
    world = World()
    services, visitor = world.services, Visitor("ben", Role.OPERATOR, frozenset({"another"}), key_id="key_ben")
    world.registry.down = True
    side = evaluation_pb2.ComparedModel(adapter_digest=ADAPTER)
    wanted = evaluation_pb2.CompareEvaluationsRequest(first=side, second=side)
    with pytest.raises(Unavailable):
        operations.approve(services, visitor, ADAPTER, "")
    with pytest.raises(Unavailable):
        operations.decline(services, visitor, ADAPTER, "no")
    with pytest.raises(Unavailable):
        operations.compare_evaluations(services, visitor, wanted)
    assert not world.registry.operator_decisions and not world.evaluation.compared


def test_what_experts_ask_for_is_proposed_and_prefills_the_form() -> None:
    world = World()
    world.registry.specialists[0].specialist.evaluation.guidelines = "Short sentences."
    with world.signed_in() as browser:
        page = browser.get(f"/specialists/{NAME}/guidelines").text
        assert "Name the owner &amp; date." in page and "4 comments of 2 experts" in page
        assert "9: 6 revised" in page and "comment not met <b>2</b>" in page
        link = f"/specialists/{NAME}/edit?guideline=Name%20the%20owner%20%26%20date."
        assert link in page and f'href="/specialists/{NAME}/guidelines"' in browser.get(f"/specialists/{NAME}").text
        form = browser.get(link).text
        assert "Short sentences.\nName the owner &amp; date.</textarea>" in form
        form = browser.get(f"/specialists/{NAME}/edit?criterion=Name%20it.").text
        assert "criterion-1: Name it.</textarea>" in form
    assert not world.registry.updates


def test_guidelines_are_for_operators_and_survive_a_silent_service() -> None:
    world = World()
    with world.signed_in(Role.ENGINEER) as browser:
        assert browser.get(f"/specialists/{NAME}/guidelines").status_code == 403
    world.panel.down = True
    with world.signed_in() as browser:
        page = browser.get(f"/specialists/{NAME}/guidelines")
        assert page.status_code == 200 and "No answer from registry" in page.text
        assert browser.get("/specialists/never-created/edit").status_code == 404


def test_a_proposal_is_added_once() -> None:
    form = DefinitionForm(guidelines="Be kind.", criteria="tone: Be kind.")
    assert add_proposals(form, " Be  kind. ", "Be kind.") == form
    added = add_proposals(form, "Be\nbrief.", "Be brief.")
    assert (added.guidelines, added.criteria) == ("Be kind.\nBe brief.", "tone: Be kind.\ncriterion-2: Be brief.")
