"""The pages over services in memory."""

import re
from dataclasses import replace

import pytest

from services.console.domain import Role
from services.console.views import Arm, Canary, Evaluation, Flow, KeptText, Key, Replica
from tests.unit.console.fakes import (
    ADAPTER,
    BASE_DRAFT,
    DATASET,
    DRAFT,
    NAME,
    NOW,
    OLD_ADAPTER,
    PASSWORD,
    RUN,
    World,
    adapter,
    dataset,
    document,
    evaluated,
    rejection,
    run,
    sign_in,
    specialist,
)

PAGES = [
    "/",
    "/documents",
    "/documents/rejected",
    "/audit",
    "/datasets",
    f"/datasets/{DATASET}",
    "/runs",
    f"/runs/{RUN}",
    "/adapters",
    f"/evaluations/{ADAPTER}",
    "/specialists",
    "/ask",
    "/drafts",
    f"/drafts/{DRAFT}",
    f"/drafts/{BASE_DRAFT}",
    "/erasures",
    "/keys",
]
HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.mark.parametrize("path", PAGES)
def test_every_page_renders_for_the_operator(path: str) -> None:
    answer = World().signed_in().get(path)
    assert answer.status_code == 200
    assert "</html>" in answer.text
    assert 'class="notice bad"><strong>' not in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_inline_script_inline_style_or_anything_from_elsewhere(path: str) -> None:
    text = World().signed_in().get(path).text
    assert not re.search(r"<script(?![^>]* src=)|\sstyle=|\son[a-z]+=|https?://", text)


def test_static_files_load_nothing_from_elsewhere() -> None:
    browser = World().browser()
    for name in ("console.css", "console.js", "charts.js", "run.js", "icon.svg"):
        answer = browser.get(f"/static/{name}")
        assert answer.status_code == 200
        addresses = set(re.findall(r"https?://[^\"'\s)]+", answer.text))
        assert addresses <= {"http://www.w3.org/2000/svg"}


def test_flow_counts_every_submission_once() -> None:
    world = World()
    world.registry.flow_counts = Flow(10, 7, {"DUPLICATE": 3, "UNREADABLE": 1}, {"PERSON": 12})
    board = world.signed_in().get("/api/flow").json()
    stages = {stage["name"]: stage for stage in board["stages"]}
    assert [stages[name]["value"] for name in ("submitted", "ingested", "anonymised", "rows")] == [
        "13",
        "10",
        "7",
        "480",
    ]
    assert stages["submitted"]["note"] == "2 under way"
    assert board["rejected_total"] == "4"
    assert board["findings"] == [{"name": "person", "count": "12", "share": 100}]


def test_flow_shows_run_gate_and_what_serves() -> None:
    stages = {stage["name"]: stage for stage in World().signed_in().get("/api/flow").json()["stages"]}
    assert (stages["run"]["value"], stages["run"]["state"]) == ("33 %", "busy")
    assert (stages["evaluation"]["value"], stages["evaluation"]["state"]) == ("passed", "done")
    assert (stages["serving"]["value"], stages["serving"]["note"]) == ("1", "bbbbbbbbbb · generation 1")


def test_flow_is_calm_before_anything_happened() -> None:
    world = World()
    world.registry.flow_counts = Flow()
    world.registry.dataset_items, world.registry.adapter_items, world.registry.specialist_items = [], [], []
    world.training.items = []
    stages = world.signed_in().get("/api/flow").json()["stages"]
    assert {stage["state"] for stage in stages} == {"idle"}


def test_a_service_that_does_not_answer_is_named_and_the_rest_is_shown() -> None:
    world = World()
    browser = world.signed_in()
    world.training.down = True
    world.health.down = {"training"}
    text = browser.get("/").text
    assert "training could not be asked." in text
    assert "134" not in text
    assert "131" in text
    board = browser.get("/api/flow").json()
    assert {"name": "training", "state": "down"} in board["services"]
    assert [stage["note"] for stage in board["stages"] if stage["name"] == "run"] == ["training does not answer"]


@pytest.mark.parametrize("path", [path for path in PAGES if not path.startswith("/drafts")])
def test_pages_render_while_no_service_answers(path: str) -> None:
    world = World()
    browser = world.browser()
    sign_in(browser, PASSWORD)
    world.registry.down = world.training.down = world.evaluation.down = world.inference.down = True
    world.auditing.down = True
    answer = browser.get(path)
    assert answer.status_code == 200
    assert "could not be asked." in answer.text
    assert "UNAVAILABLE" in answer.text


def test_documents_show_counts_labels_and_rejections() -> None:
    text = World().signed_in().get("/documents").text
    assert "email address <b>1</b>" in text
    assert '<span class="tag">sharepoint</span>' in text
    assert "CORRUPT" in text


def test_documents_are_paged() -> None:
    world = World()
    world.registry.page_size = 2
    browser = world.signed_in()
    assert "token=2" in browser.get("/documents").text
    assert "CORRUPT" in browser.get("/documents?token=2").text
    assert "CORRUPT" in browser.get("/documents/rejected").text


def test_everything_from_outside_is_escaped() -> None:
    world = World()
    world.registry.specialist_items = [specialist(description=HOSTILE)]
    world.registry.document_items = [
        replace(document(), format=HOSTILE, findings={HOSTILE: 1}),
        rejection(hint=HOSTILE),
    ]
    world.registry.adapter_items = [adapter(refusals=(HOSTILE,), decision="refused")]
    world.registry.dataset_items = [replace(dataset(), recipe=HOSTILE)]
    world.training.items = [replace(run("failed"), reason="BAD", message=HOSTILE)]
    world.evaluation.answers[ADAPTER] = Evaluation(
        "e", "succeeded", 1, 1, "", evaluated(), f"{HOSTILE} [x](javascript:alert(1)) ![y](https://evil.example/p.png)"
    )
    browser = world.signed_in()
    for path in (*PAGES, f"/nowhere/{HOSTILE}", f"/documents?specialist={HOSTILE}", f"/login?next=/{HOSTILE}"):
        text = browser.get(path).text
        assert "<img src=x" not in text
        assert "javascript:" not in re.sub(r"\(javascript:[^)]*\)", "", text)
        assert 'src="https:' not in text


def test_evaluation_shows_scores_gate_report_and_plot() -> None:
    world = World()
    world.registry.adapter_items = [adapter(evaluation=evaluated(rougeL=0.2), refusals=("too few rows",))]
    world.evaluation.answers[ADAPTER] = replace(world.evaluation.answers[ADAPTER], result=evaluated(rougeL=0.2))
    browser = world.signed_in()
    text = browser.get(f"/evaluations/{ADAPTER}").text
    for part in ("ROUGE-L", "0.120", "0.200", "0.230", "+0.110", "+14.600", "too few rows", "All well.", "plot.png"):
        assert part in text
    plot = browser.get(f"/evaluations/{ADAPTER}/plot.png")
    assert (plot.headers["content-type"], plot.content[:4]) == ("image/png", b"\x89PNG")


def test_evaluation_of_an_adapter_that_was_not_measured_yet() -> None:
    world = World()
    world.registry.adapter_items = [adapter(OLD_ADAPTER, evaluation=None, decision="waiting")]
    browser = world.signed_in()
    assert "Not measured yet." in browser.get(f"/evaluations/{OLD_ADAPTER}").text
    assert browser.get(f"/evaluations/{OLD_ADAPTER}/plot.png").status_code == 404


def test_unknown_things_are_not_found() -> None:
    browser = World().signed_in()
    for path in ("/runs/run_x", "/evaluations/none", "/drafts/drf_x", "/nowhere"):
        answer = browser.get(path)
        assert answer.status_code == 404
        assert "That did not work" in answer.text


def test_trace_names_adapter_dataset_and_documents() -> None:
    text = World().signed_in().get(f"/drafts/{DRAFT}").text
    assert all(part in text for part in (f"/evaluations/{ADAPTER}", "432 to train on", document(2).document_id))
    assert "no document of the company" in World().signed_in().get(f"/drafts/{BASE_DRAFT}").text


def test_key_with_one_specialist_sees_no_other() -> None:
    world = World()
    world.registry.specialist_items.append(specialist("secret-deals"))
    world.registry.adapter_items.append(adapter("e" * 64, "secret-deals"))
    world.registry.dataset_items.append(dataset("secret-deals"))
    world.training.items.append(replace(run(specialist="secret-deals"), run_id="run_secret"))
    world.inference.names = ("base", NAME, "secret-deals")
    browser = world.signed_in(Role.ENGINEER, NAME)
    for path in ("/", "/specialists", "/adapters", "/datasets", "/runs", "/ask"):
        assert "secret-deals" not in browser.get(path).text
    for path in (f"/evaluations/{'e' * 64}", "/runs/run_secret", "/documents?specialist=secret-deals"):
        assert browser.get(path).status_code == 404


def test_a_fault_of_ours_shows_no_traceback() -> None:
    world = World()
    browser = world.signed_in()
    world.registry.key_items = [object()]  # type: ignore[list-item]
    answer = browser.get("/keys")
    assert answer.status_code == 500
    assert "INTERNAL" in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"


def test_keys_show_what_each_may_do() -> None:
    world = World()
    limited = Key("key_1", "batch", "caller", ("memos",), False, NOW, None, ("InferenceService/Generate",), 60)
    world.registry.key_items = [limited, replace(limited, methods=(), calls_per_minute=0)]
    text = world.signed_in().get("/keys").text
    assert "InferenceService/Generate" in text and "60" in text
    assert "all of the role" in text and "any" in text


def test_specialists_show_how_far_a_promotion_is() -> None:
    world = World()
    assert "finished" in world.signed_in().get("/specialists").text
    item = world.registry.specialist_items[0]
    waiting = (Replica("inference-0", True), Replica("inference-1", False), Replica("inference-2", False, "WRONG_BASE"))
    world.registry.specialist_items = [replace(item, serving=replace(item.serving, replicas=waiting, finished=False))]
    text = world.signed_in().get("/specialists").text
    for said in ("not finished", "serves it", "not yet", "WRONG_BASE"):
        assert said in text


def test_specialists_show_both_arms_of_a_canary_and_why_it_ended() -> None:
    world = World()
    item = world.registry.specialist_items[0]
    assert "Canary" not in world.signed_in().get("/specialists").text
    tried, beside = Arm(3, 61, 2, 0.25, 0.012), Arm(27, 540, 1)
    canary = Canary("cd" * 32, 10, "running", "", tried, beside, NOW)
    for found in (canary, replace(canary, state="back", reason="2 of 61 calls failed <b>", end_time=NOW)):
        world.registry.specialist_items = [replace(item, canary=found)]
        text = world.signed_in().get("/specialists").text
        for said in ("10 % of the callers", found.state, "<b>61</b> calls of 3 keys", "<b>2</b> failed", "0.012 s"):
            assert said in text
    assert "2 of 61 calls failed &lt;b&gt;" in text


def test_erasures_say_for_whom_they_wait_and_show_the_signed_receipt() -> None:
    text = World().signed_in().get("/erasures").text
    assert "inference, training" in text and "court-order" in text
    assert "ab12" in text


def test_kept_words_of_a_draft_are_shown_to_who_may_read_them_and_escaped() -> None:
    world = World()
    said = KeptText("kept", (("user", "Write to Ines Marsh."), ("assistant", HOSTILE)), "Dear Ines")
    world.inference.texts[DRAFT] = said
    for role, shown in {
        Role.EXPERT: True,
        Role.OPERATOR: True,
        Role.CALLER: False,
        Role.DATA_PROTECTION: False,
    }.items():
        text = world.signed_in(role).get(f"/drafts/{DRAFT}").text
        assert ("Write to Ines Marsh." in text, "Dear Ines" in text) == (shown, shown), role
        assert HOSTILE not in text


def test_a_callers_key_reads_the_words_of_its_own_drafts() -> None:
    world = World()
    world.inference.texts[DRAFT] = KeptText("kept", (("user", "Ask."),), "Dear Ines")
    trace = world.registry.traces[DRAFT]
    world.registry.traces[DRAFT] = replace(trace, draft=replace(trace.draft, key_id="key_0011223344556677"))
    assert "Dear Ines" in world.signed_in(Role.CALLER).get(f"/drafts/{DRAFT}").text


@pytest.mark.parametrize(("state", "says"), [("expired", "have expired"), ("not kept", "are not kept")])
def test_a_draft_without_words_says_why(state: str, says: str) -> None:
    world = World()
    world.inference.texts[DRAFT] = KeptText(state)
    assert says in world.signed_in().get(f"/drafts/{DRAFT}").text


@pytest.mark.parametrize(("kept", "told"), [(True, 'data-kept="yes"'), (False, 'data-kept="no"')])
def test_two_draws_are_compared_first_and_who_ranks_is_told_whether_the_specialist_learns(
    kept: bool, told: str
) -> None:
    world = World()
    world.registry.specialist_items = [replace(specialist(), keep_drafts=kept)]
    text = world.signed_in(Role.EXPERT).get("/ask").text
    assert re.findall(r'<option value="(draw|base)"', text) == ["draw", "base"]
    assert told in text and "become a row of its next preference dataset" in text
    assert "data-kept" not in world.signed_in(Role.CALLER).get("/ask").text


def test_nothing_is_said_of_learning_while_the_registry_does_not_answer() -> None:
    world = World()
    browser = world.browser()
    sign_in(browser, PASSWORD)
    world.registry.down = True
    text = browser.get("/ask").text
    assert "registry could not be asked." in text and "data-kept" not in text


def test_a_draft_is_shown_while_inference_is_away() -> None:
    world = World()
    world.inference.down = True
    text = world.signed_in().get(f"/drafts/{DRAFT}").text
    assert "432 to train on" in text and "inference" in text and "UNAVAILABLE" in text
