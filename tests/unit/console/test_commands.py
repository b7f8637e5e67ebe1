"""What engineers and operators start: specialists, datasets, runs and evaluations."""

import re
from html import unescape
from typing import Any

import pytest

from services.console.domain import ADMITTED, Permission, Role
from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, Reason
from tests.unit.console.messages import (
    ADAPTER,
    BASE,
    DATASET,
    NAME,
    OLD_ADAPTER,
    PREFERENCES,
    RUN,
    STAMP,
    adapter,
    dataset,
    run,
    specialist,
    trained,
)
from tests.unit.console.world import World

ATTEMPT = "attempt-1"
DEFINITION = 'name = "memos"\nbase = "smollm2"\nrecipe = "lora"\n[rebuild]\nmin_new_items = 3\n'
TERMS = {"specialist": NAME, "dataset": DATASET, "base": BASE, "recipe": "lora", "priority": "3", "attempt": ATTEMPT}


def make_posts() -> dict[str, tuple[dict[str, str], Permission]]:
    """Every command with its form and the permission that it needs."""
    return {
        "/specialists": ({"definition": DEFINITION, "attempt": ATTEMPT}, Permission.MANAGE_SPECIALISTS),
        f"/specialists/{NAME}/definition": (
            {"definition": DEFINITION.replace("memos", NAME), "revision": "2"},
            Permission.MANAGE_SPECIALISTS,
        ),
        f"/specialists/{NAME}/build": ({"kind": "sft", "attempt": ATTEMPT}, Permission.BUILD),
        "/runs": (TERMS, Permission.MANAGE_RUNS),
        f"/runs/{RUN}/cancel": ({}, Permission.MANAGE_RUNS),
        f"/runs/{RUN}/approve": ({}, Permission.MANAGE_RUNS),
        f"/runs/{RUN}/resume": ({"attempt": ATTEMPT}, Permission.MANAGE_RUNS),
        f"/evaluations/{ADAPTER}/evaluate": ({"attempt": ATTEMPT}, Permission.EVALUATE),
    }


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("path", list(make_posts()))
def test_a_command_needs_its_permission_and_the_sessions_token(path: str, role: Role) -> None:
    world = World()
    browser = world.signed_in(role)
    form, permission = make_posts()[path]
    assert browser.post(path, data=form).status_code == (303 if permission in ADMITTED[role] else 403)
    browser.headers.pop("x-csrf-token")
    refused = browser.post(path, data=form)
    assert refused.status_code == 403 and "INVALID_CSRF_TOKEN" in refused.text


def test_an_operator_defines_a_specialist_from_a_text() -> None:
    world = World()
    browser = world.signed_in()
    assert "/new-specialist" in browser.get("/specialists").text
    page = browser.get("/new-specialist").text
    assert f"base = &#34;{BASE}&#34;" in page
    answer = browser.post("/specialists", data={"definition": DEFINITION, "attempt": ATTEMPT})
    assert answer.headers["location"] == "/specialists/memos?notice=created"
    ((defined, attempt),) = world.registry.defined
    assert (defined.name, defined.rebuild.min_new_items, attempt) == ("memos", 3, ATTEMPT)
    assert "The specialist is defined." in browser.get("/specialists/memos?notice=created").text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = ", "is not TOML"),
        ('name = "x"\nwhat = 1', "is not a valid definition"),
        (f'name = "{NAME}"\nbase = "b"\nrecipe = "r"', "choose another name"),
    ],
)
def test_a_text_that_cannot_be_a_specialist_is_shown_again_with_the_reason(text: str, reason: str) -> None:
    world = World()
    answer = world.signed_in().post("/specialists", data={"definition": text, "attempt": ATTEMPT})
    assert answer.status_code in (400, 409)
    shown = unescape(answer.text)
    assert reason in shown and text in shown
    assert world.registry.defined == []


def test_every_field_of_a_definition_is_changed_as_text_after_a_preview() -> None:
    world = World()
    browser = world.signed_in()
    text = unescape(
        re.findall(r"<textarea[^>]*>(.*?)</textarea>", browser.get(f"/specialists/{NAME}/definition").text, re.S)[0]
    )
    assert "min_new_items = 20" in text
    form = {"definition": text.replace("min_new_items = 20", "min_new_items = 70"), "revision": "2"}
    shown = browser.post(f"/specialists/{NAME}/definition/preview", data=form)
    assert "What this changes" in shown.text and "Save" in shown.text
    saved = browser.post(f"/specialists/{NAME}/definition", data=form)
    assert saved.headers["location"] == f"/specialists/{NAME}?notice=updated"
    assert [validate for _, validate in world.registry.updates] == [True, False]
    changed = world.registry.updates[-1][0]
    before = specialist().specialist
    assert (changed.rebuild.min_new_items, changed.revision) == (70, 2)
    assert list(changed.house_terms) == list(before.house_terms) and changed.gate == before.gate


def test_a_text_of_another_specialist_or_of_an_old_revision_is_refused() -> None:
    world = World()
    browser = world.signed_in()
    path = f"/specialists/{NAME}/definition"
    other = browser.post(path, data={"definition": DEFINITION, "revision": "2"})
    assert other.status_code == 400 and f"must be {NAME}" in other.text and not world.registry.updates
    world.registry.update_error = Aborted(Reason.REVISION_MOVED, "Current revision is 7. Reload and retry.")
    text = DEFINITION.replace("memos", NAME)
    old = browser.post(path, data={"definition": text, "revision": "2"})
    assert old.status_code == 409 and "Current revision is 7" in old.text and "min_new_items = 3" in old.text


@pytest.mark.parametrize("kind", ["sft", "preference"])
def test_an_engineer_builds_a_dataset(kind: str) -> None:
    world = World()
    browser = world.signed_in(Role.ENGINEER)
    assert f'action="/specialists/{NAME}/build"' in browser.get(f"/specialists/{NAME}").text
    answer = browser.post(f"/specialists/{NAME}/build", data={"kind": kind, "attempt": ATTEMPT})
    assert answer.headers["location"] == f"/datasets/{DATASET}?notice=built"
    assert world.synthetic.built == [(NAME, kind, ATTEMPT)]
    assert "The dataset is built." in browser.get(f"/datasets/{DATASET}?notice=built").text


def test_a_build_without_anything_new_and_one_that_lasts_say_so() -> None:
    world = World()
    browser = world.signed_in()
    form = {"kind": "sft", "attempt": ATTEMPT}
    world.synthetic.answer = synthetic_pb2.BuildDatasetResponse(dataset=dataset())
    assert browser.post(f"/specialists/{NAME}/build", data=form).headers["location"].endswith("?notice=unchanged")
    world.synthetic.answer = None
    lasting = browser.post(f"/specialists/{NAME}/build", data=form).headers["location"]
    assert lasting == f"/specialists/{NAME}?notice=building"
    assert "It continues" in browser.get(lasting).text
    assert browser.post(f"/specialists/{NAME}/build", data=form | {"kind": "x"}).status_code == 400


def test_an_engineer_admits_a_source_or_publisher_that_waits_and_nobody_else_sees_it() -> None:
    world = World()
    world.synthetic.origins = [
        synthetic_pb2.Origin(kind=synthetic_pb2.ORIGIN_KIND_TESTS, name="key_7", documents=3, publishers=["key_7"]),
        synthetic_pb2.Origin(kind=synthetic_pb2.ORIGIN_KIND_SOURCE, name="wiki", documents=40, admit_time=STAMP),
    ]
    browser = world.signed_in(Role.ENGINEER, NAME)
    page = browser.get(f"/specialists/{NAME}").text
    assert page.count(f'action="/specialists/{NAME}/admit"') == 1 and "key_7" in page and "wiki" in page
    answer = browser.post(f"/specialists/{NAME}/admit", data={"kind": "tests", "origin": "key_7"})
    assert answer.headers["location"] == f"/specialists/{NAME}?notice=admitted#origins"
    [(specialist, kind, name, admitted_by)] = world.synthetic.admitted
    assert (specialist, kind, name, bool(admitted_by)) == (NAME, "tests", "key_7", True)
    assert browser.post(f"/specialists/{NAME}/admit", data={"kind": "x", "origin": ""}).status_code == 400
    assert browser.post("/specialists/secret-deals/admit", data={"kind": "tests"}).status_code == 404
    expert = world.signed_in(Role.EXPERT)
    assert "key_7" not in expert.get(f"/specialists/{NAME}").text
    assert expert.post(f"/specialists/{NAME}/admit", data={"kind": "tests", "origin": "key_7"}).status_code == 403
    assert len(world.synthetic.admitted) == 1


def test_the_form_of_a_run_is_filled_in_from_the_dataset_and_the_newest_rankings() -> None:
    world = World()
    stages = [
        models_pb2.PipelineStage(stage="sft", recipe="lora"),
        models_pb2.PipelineStage(stage="dpo", recipe="gentle"),
    ]
    ranked = dataset(digest=PREFERENCES, kind=models_pb2.DATASET_KIND_PREFERENCE, pipeline=stages)
    world.registry.datasets = [ranked, dataset(pipeline=stages)]
    browser = world.signed_in(Role.ENGINEER)
    assert f"/runs/new?dataset={DATASET}" in browser.get(f"/datasets/{DATASET}").text

    def fields(digest: str) -> dict[str, str]:
        text = browser.get(f"/runs/new?dataset={digest}").text
        return dict(re.findall(r'<input name="(\w+)" value="([^"]*)"', text))

    assert fields(DATASET) | {"priority": ""} == {
        "specialist": NAME,
        "dataset": DATASET,
        "preferences": PREFERENCES,
        "base": BASE,
        "recipe": "lora, gentle",
        "parent": "",
        "priority": "",
    }
    # Rankings are for the stages after the first.
    assert (fields(PREFERENCES)["recipe"], fields(PREFERENCES)["preferences"]) == ("gentle", "")


def test_a_run_is_forecast_then_started() -> None:
    world = World()
    browser = world.signed_in(Role.ENGINEER)
    forecast = browser.post("/runs/plan", data=TERMS).text
    assert "39,000 in 120 steps" in forecast and "nothing is started yet" in forecast
    terms: dict[str, Any] = {"specialist": NAME, "dataset_digest": DATASET, "base": BASE, "recipe": "lora"}
    assert (world.training.planned, world.training.created) == ([training_pb2.PlanRunRequest(**terms)], [])
    answer = browser.post("/runs", data=TERMS)
    assert answer.headers["location"] == f"/runs/run_{'9' * 32}?notice=started"
    assert world.training.created == [training_pb2.CreateRunRequest(**terms, priority=3, request_id=ATTEMPT)]


@pytest.mark.parametrize("path", ["/runs", "/runs/plan"])
def test_a_run_that_training_refuses_is_shown_again(path: str) -> None:
    world = World()
    browser = world.signed_in()
    short = browser.post(path, data=TERMS | {"dataset": "abc"})
    assert short.status_code == 400 and "must be 64 hexadecimal digits" in short.text and 'value="lora"' in short.text
    world.training.error = FailedPrecondition(Reason.DOES_NOT_FIT, "It needs 90 GiB; use qlora.")
    large = browser.post(path, data=TERMS)
    assert large.status_code == 400 and "use qlora" in large.text
    world.training.error = InvalidArgument(
        Reason.INVALID_RECIPE, "No such recipe.", field_violations={"recipe": "unknown"}
    )
    assert '<span class="wrong">unknown</span>' in browser.post(path, data=TERMS).text


def test_a_limited_engineer_cannot_train_on_what_belongs_to_others() -> None:
    world = World()
    world.registry.datasets = [dataset(), dataset(digest=PREFERENCES, specialist="secret-deals")]
    world.registry.adapters = [adapter(trained(OLD_ADAPTER, specialist="secret-deals"))]
    browser = world.signed_in(Role.ENGINEER, NAME)
    for change in ({"specialist": "secret-deals"}, {"preferences": PREFERENCES}, {"parent": OLD_ADAPTER}):
        assert browser.post("/runs", data=TERMS | change).status_code == 404, change
        assert browser.post("/runs/plan", data=TERMS | change).status_code == 404, change
    world.registry.down = True
    assert browser.post("/runs", data=TERMS).status_code == 503
    assert world.training.created == []
    assert world.training.planned == []


def test_a_run_is_cancelled_and_started_again_with_the_same_terms() -> None:
    world = World()
    browser = world.signed_in(Role.ENGINEER)
    page = browser.get(f"/runs/{RUN}").text
    assert f'action="/runs/{RUN}/cancel" data-confirm=' in page and "/resume" not in page
    assert browser.post(f"/runs/{RUN}/cancel").headers["location"] == f"/runs/{RUN}?notice=cancelled"
    assert world.training.cancelled == [RUN]
    world.training.runs = [run("cancelled", preference_dataset_digest=PREFERENCES, priority=5)]
    page = browser.get(f"/runs/{RUN}").text
    assert "/cancel" not in page and f'action="/runs/{RUN}/resume"' in page
    browser.post(f"/runs/{RUN}/resume", data={"attempt": ATTEMPT})
    assert world.training.created == [
        training_pb2.CreateRunRequest(
            specialist=NAME,
            dataset_digest=DATASET,
            base=BASE,
            recipe="sft-lora",
            preference_dataset_digest=PREFERENCES,
            priority=5,
            request_id=ATTEMPT,
        )
    ]


def test_a_run_that_waits_for_approval_is_shown_with_what_would_fit_and_approved() -> None:
    world = World()
    advice = "Set `max_train_tokens = 230_000` under `[rows]`."
    world.training.runs = [run("awaiting_approval", step=0, reason="WAITS_FOR_APPROVAL", message=advice)]
    browser = world.signed_in(Role.ENGINEER)
    for path in ("/runs", f"/runs/{RUN}"):
        page = browser.get(path).text
        assert "max_train_tokens = 230_000" in page and "awaiting approval" in page
        assert f'action="/runs/{RUN}/approve" data-confirm=' in page
    assert browser.post(f"/runs/{RUN}/approve").headers["location"] == f"/runs/{RUN}?notice=run-approved"
    ((run_id, approved_by),) = world.training.approved
    assert (run_id, bool(approved_by)) == (RUN, True)
    world.training.runs = [run(approved_by="key_7", approve_time=STAMP)]
    page = browser.get(f"/runs/{RUN}").text
    assert "/approve" not in page and "by key_7" in page


def test_runs_and_adapters_of_other_specialists_cannot_be_touched() -> None:
    world = World()
    world.training.runs = [run(specialist="secret-deals")]
    world.registry.adapters = [adapter(trained(specialist="secret-deals"))]
    browser = world.signed_in(Role.ENGINEER, NAME)
    for path in (
        f"/runs/{RUN}/cancel",
        f"/runs/{RUN}/approve",
        f"/runs/{RUN}/resume",
        f"/evaluations/{ADAPTER}/evaluate",
    ):
        assert browser.post(path, data={"attempt": ATTEMPT}).status_code == 404, path
    assert browser.post("/specialists/secret-deals/build", data={"kind": "sft", "attempt": ATTEMPT}).status_code == 404
    assert world.training.approved == []
    assert (world.training.cancelled, world.training.created, world.evaluation.queued, world.synthetic.built) == (
        [],
        [],
        [],
        [],
    )
    operator = world.signed_in(Role.OPERATOR, NAME)
    assert operator.post("/specialists", data={"definition": DEFINITION, "attempt": ATTEMPT}).status_code == 404
    assert world.registry.defined == []


def test_an_adapter_is_evaluated_again() -> None:
    world = World()
    browser = world.signed_in(Role.ENGINEER)
    assert "Evaluate again" in browser.get(f"/evaluations/{ADAPTER}").text
    answer = browser.post(f"/evaluations/{ADAPTER}/evaluate", data={"attempt": ATTEMPT})
    assert answer.headers["location"] == f"/evaluations/{ADAPTER}?notice=evaluating"
    assert world.evaluation.queued == [(ADAPTER, ATTEMPT)]


def test_each_page_has_its_own_attempt() -> None:
    browser = World().signed_in()
    texts = (browser.get(f"/evaluations/{ADAPTER}").text for _ in range(2))
    attempts = {re.findall(r'name="attempt" value="(\w+)"', text)[0] for text in texts}
    assert len(attempts) == 2
