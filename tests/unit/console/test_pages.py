"""The pages over services in memory."""

import re
from typing import Any

import pytest

from services.console.domain import Role
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.errors import InvalidArgument, Reason
from tests.evaluations import make_evaluated, make_figures
from tests.unit.console.fake_models import text as draft_text
from tests.unit.console.fake_registry import FakeRegistry
from tests.unit.console.fake_rows import row
from tests.unit.console.messages import (
    ADAPTER,
    BASE_DRAFT,
    DATASET,
    DRAFT,
    KEY,
    NAME,
    OLD_ADAPTER,
    RUN,
    STAMP,
    adapter,
    api_key,
    catalogued,
    dataset,
    document,
    draft,
    edit,
    evaluated,
    rejection,
    run,
    serving,
    specialist,
    trained,
)
from tests.unit.console.world import PASSWORD, World, sign_in

PAGES = [
    "/flow",
    "/documents",
    "/documents/rejected",
    f"/documents/doc_{1:032x}",
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
def test_no_page_has_inline_scripts_or_styles_or_loads_from_other_hosts(path: str) -> None:
    text = World().signed_in().get(path).text
    assert not re.search(r"<script(?![^>]* src=)|\sstyle=|\son[a-z]+=|https?://", text)


def test_static_files_load_nothing_from_other_hosts() -> None:
    browser = World().browser()
    for name in ("console.css", "console.js", "charts.js", "run.js", "icon.svg"):
        answer = browser.get(f"/static/{name}")
        assert answer.status_code == 200
        addresses = set(re.findall(r"https?://[^\"'\s)]+", answer.text))
        assert addresses <= {"http://www.w3.org/2000/svg"}


def test_names_a_service_that_does_not_answer_and_shows_the_rest() -> None:
    world = World()
    browser = world.signed_in()
    world.training.down = True
    world.unhealthy.add("training")
    text = browser.get("/flow").text
    assert "No answer from training." in text
    assert "134" not in text
    assert "131" in text
    board = browser.get("/api/flow").json()
    assert {"name": "training", "state": "down"} in board["services"]
    assert [stage["note"] for stage in board["stages"] if stage["name"] == "run"] == ["training does not answer"]


@pytest.mark.parametrize("path", [path for path in PAGES if not path.startswith("/drafts")])
def test_pages_render_without_any_service(path: str) -> None:
    world = World()
    browser = world.browser()
    sign_in(browser, PASSWORD)
    world.registry.down = world.training.down = world.evaluation.down = world.inference.down = True
    world.synthetic.near = None
    answer = browser.get(path)
    assert answer.status_code == 200
    assert "No answer from " in answer.text
    assert "UNAVAILABLE" in answer.text


def test_documents_show_counts_labels_and_rejections() -> None:
    text = World().signed_in().get("/documents").text
    assert "email address <b>1</b>" in text
    assert '<span class="tag">sharepoint</span>' in text
    assert "CORRUPT" not in text and "CORRUPT" in World().signed_in().get("/documents/rejected").text


def test_documents_are_paged() -> None:
    world = World()
    world.registry.page_size = 1
    browser = world.signed_in()
    first, second = (world.registry.documents[number].anonymized.document_id for number in (0, 1))
    page = browser.get("/documents").text
    assert "token=1" in page and first in page and second not in page
    assert second in browser.get("/documents?token=1").text


def test_a_document_says_which_languages_were_masked_by_rules_only() -> None:
    world = World()
    page = f"/documents/doc_{1:032x}"
    assert "rules only" not in world.signed_in().get(page).text
    world.registry.documents = [catalogued(rules_only_languages=["fi", "sv"])]
    assert "masked by rules only: fi, sv" in world.signed_in().get(page).text


def test_every_value_from_services_is_escaped() -> None:
    world = World()
    world.registry.specialists = [specialist(description=HOSTILE)]
    world.registry.documents = [catalogued(format=HOSTILE, findings={HOSTILE: 1}), rejection(hint=HOSTILE)]
    world.registry.adapters = [adapter(reasons=[HOSTILE], decision=registry_pb2.DECISION_REFUSED)]
    world.registry.datasets = [dataset(pipeline=[models_pb2.PipelineStage(stage=HOSTILE, recipe=HOSTILE)])]
    message = synthetic_pb2.RowMessage(role=HOSTILE, content=HOSTILE)
    world.synthetic.pages = [
        [row(1, task=HOSTILE, document_ids=[HOSTILE], messages=[message], lineage={HOSTILE: HOSTILE})]
    ]
    world.training.runs = [run("failed", reason="BAD", message=HOSTILE)]
    world.evaluation.answers[ADAPTER] = evaluation_pb2.GetEvaluationResponse(
        state=evaluation_pb2.EVALUATION_STATE_SUCCEEDED,
        result=evaluated(),
        report_markdown=f"{HOSTILE} [x](javascript:alert(1)) ![y](https://evil.example/p.png)",
    )
    browser = world.signed_in()
    for path in (*PAGES, f"/nowhere/{HOSTILE}", f"/documents?specialist={HOSTILE}", f"/login?next=/{HOSTILE}"):
        text = browser.get(path).text
        assert "<img src=x" not in text
        assert "javascript:" not in re.sub(r"\(javascript:[^)]*\)", "", text)
        assert 'src="https:' not in text


def test_evaluation_shows_scores_gate_report_and_plot() -> None:
    world = World()
    world.registry.adapters = [
        adapter(evaluation=evaluated(rougeL=0.2), reasons=["too few rows"], decision=registry_pb2.DECISION_UNDECIDED)
    ]
    world.evaluation.answers[ADAPTER].result.CopyFrom(evaluated(rougeL=0.2))
    browser = world.signed_in()
    text = browser.get(f"/evaluations/{ADAPTER}").text
    assert "Left out: 2 held-out rows" in text
    assert "Cut at the maximum of tokens: 3 of 48 answers of candidate." in text
    assert "Metrics and gate: revision 4, frozen on 2026-01-02" in text
    assert "Changed since revision 1 of 2026-01-01" in text
    assert "Goal reached: BLEU gain over base of 5.000" in text
    for part in (
        "ROUGE-L",
        "0.120 (0.115 to 0.125)",
        "0.200 (0.195 to 0.205)",
        "0.230",
        "+0.030 (+0.025 to +0.035)",
        "verdict on the newest evaluation: undecided",
        "too few rows",
        "All well.",
        "plot.png",
    ):
        assert part in text
    plot = browser.get(f"/evaluations/{ADAPTER}/plot.png")
    assert (plot.headers["content-type"], plot.content[:4]) == ("image/png", b"\x89PNG")


def test_evaluation_of_an_adapter_that_is_not_evaluated_yet() -> None:
    world = World()
    world.registry.adapters = [adapter(trained(OLD_ADAPTER), evaluation=None, decision=None)]
    browser = world.signed_in()
    assert "Not evaluated yet." in browser.get(f"/evaluations/{OLD_ADAPTER}").text
    assert browser.get(f"/evaluations/{OLD_ADAPTER}/plot.png").status_code == 404


def test_unknown_ids_are_not_found() -> None:
    browser = World().signed_in()
    for path in ("/runs/run_x", "/evaluations/none", "/drafts/drf_x", "/nowhere"):
        answer = browser.get(path)
        assert answer.status_code == 404
        assert "Something went wrong" in answer.text


def test_an_invalid_or_ambiguous_digest_is_not_found() -> None:
    class Ambiguous(FakeRegistry):
        def GetAdapter(self, request: Any, context: Any) -> Any:
            raise InvalidArgument(Reason.AMBIGUOUS_ADAPTER, "Several adapters match.")

    registry = Ambiguous()  # type: ignore[abstract]  # only what the console calls
    answer = World(registry=registry).signed_in().get(f"/evaluations/{ADAPTER[:6]}")
    assert (answer.status_code, "UNKNOWN_ADAPTER" in answer.text) == (404, True)


def test_trace_names_adapter_dataset_and_documents() -> None:
    text = World().signed_in().get(f"/drafts/{DRAFT}").text
    assert all(part in text for part in (f"/evaluations/{ADAPTER}", "432 for training", document(2).document_id))
    assert "not trained on any of your documents" in World().signed_in().get(f"/drafts/{BASE_DRAFT}").text


def test_key_for_one_specialist_cannot_see_others() -> None:
    world = World()
    world.registry.specialists.append(specialist("secret-deals"))
    world.registry.adapters.append(adapter(trained("e" * 64, specialist="secret-deals")))
    world.registry.datasets.append(dataset(specialist="secret-deals", digest="f" * 64))
    world.training.runs.append(run(specialist="secret-deals", run_id="run_secret"))
    world.inference.names = ("base", NAME, "secret-deals")
    browser = world.signed_in(Role.ENGINEER, NAME)
    for path in ("/flow", "/specialists", "/adapters", "/datasets", "/runs", "/ask"):
        assert "secret-deals" not in browser.get(path).text
    hidden = (f"/evaluations/{'e' * 64}", f"/datasets/{'f' * 64}", "/runs/run_secret")
    for path in (*hidden, "/documents?specialist=secret-deals"):
        assert browser.get(path).status_code == 404


def test_an_internal_error_shows_no_traceback() -> None:
    world = World()
    world.services.registry = None  # type: ignore[assignment]  # a defect of the console
    browser = world.signed_in()
    answer = browser.get("/keys")
    assert answer.status_code == 500
    assert "INTERNAL" in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"


def test_keys_show_their_limits() -> None:
    world = World()
    method = "tailor.api.inference.v1.InferenceService/Generate"
    world.registry.keys = [api_key(methods=[method], calls_per_minute=60), api_key("key_2")]
    text = world.signed_in().get("/keys").text
    assert '<td class="long">InferenceService/Generate</td>' in text and "60" in text
    assert "all that the role allows" in text and "no limit" in text


def test_specialists_show_the_rollout_of_a_promotion() -> None:
    world = World()
    assert "finished" in world.signed_in().get(f"/specialists/{NAME}").text
    replicas = [
        registry_pb2.ReplicaState(replica="inference-0", serving=True),
        registry_pb2.ReplicaState(replica="inference-1"),
        registry_pb2.ReplicaState(replica="inference-2", reason="WRONG_BASE"),
    ]
    world.registry.specialists = [edit(specialist(), serving=serving(1, *replicas))]
    text = world.signed_in().get(f"/specialists/{NAME}").text
    for part in ("not finished", "serves it", "not yet", "WRONG_BASE"):
        assert part in text


def test_specialists_show_both_arms_of_a_canary_and_why_it_ended() -> None:
    world = World()
    assert "Canary" not in world.signed_in().get(f"/specialists/{NAME}").text
    running = registry_pb2.Canary(
        adapter_digest="cd" * 32,
        policy=models_pb2.CanaryPolicy(percent=10),
        state=registry_pb2.CANARY_STATE_RUNNING,
        canary=registry_pb2.CanaryArm(callers=3, calls=61, errors=2, first_token_seconds=0.25, token_seconds=0.012),
        incumbent=registry_pb2.CanaryArm(callers=27, calls=540, errors=1),
        start_time=STAMP,
    )
    back = edit(running, state=registry_pb2.CANARY_STATE_BACK, reason="2 of 61 calls failed <b>", end_time=STAMP)
    for canary, state in ((running, "running"), (back, "back")):
        world.registry.specialists = [edit(specialist(), canary=canary)]
        text = world.signed_in().get(f"/specialists/{NAME}").text
        for part in ("10 % of the callers", state, "<b>61</b> calls by 3 keys", "<b>2</b> failed", "0.012 s"):
            assert part in text
    assert "2 of 61 calls failed &lt;b&gt;" in text


def test_erasures_show_pending_services_and_the_signed_receipt() -> None:
    text = World().signed_in().get("/erasures").text
    assert "inference, training" in text and "court-order" in text
    assert "ab12" in text


def test_stored_text_of_a_draft_is_shown_to_permitted_roles_and_escaped() -> None:
    world = World()
    messages = (("user", "Write to Ines Marsh."), ("assistant", HOSTILE))
    world.inference.texts[DRAFT] = draft_text("KEPT", *messages, answer="Dear Ines")
    for role, shown in {
        Role.EXPERT: True,
        Role.OPERATOR: True,
        Role.CALLER: False,
        Role.DATA_PROTECTION: False,
    }.items():
        page = world.signed_in(role).get(f"/drafts/{DRAFT}").text
        assert ("Write to Ines Marsh." in page, "Dear Ines" in page) == (shown, shown), role
        assert HOSTILE not in page


def test_a_caller_sees_no_draft_of_another_key() -> None:
    world = World()
    trace = world.registry.traces[DRAFT]
    for key_id, status in ((KEY, 200), ("", 200), ("key_of_somebody_else", 404)):
        world.registry.traces[DRAFT] = edit(trace, draft=draft(key_id=key_id))
        assert world.signed_in(Role.CALLER).get(f"/drafts/{DRAFT}").status_code == status
        assert world.signed_in(Role.EXPERT).get(f"/drafts/{DRAFT}").status_code == 200


def test_a_caller_can_read_the_drafts_of_its_own_key() -> None:
    world = World()
    world.inference.texts[DRAFT] = draft_text("KEPT", ("user", "Ask."), answer="Dear Ines")
    world.registry.traces[DRAFT] = edit(world.registry.traces[DRAFT], draft=draft(key_id=KEY))
    assert "Dear Ines" in world.signed_in(Role.CALLER).get(f"/drafts/{DRAFT}").text


@pytest.mark.parametrize(("state", "reason"), [("EXPIRED", "has expired"), ("NOT_KEPT", "is not stored")])
def test_a_draft_without_text_shows_why(state: str, reason: str) -> None:
    world = World()
    world.inference.texts[DRAFT] = draft_text(state)
    assert reason in world.signed_in().get(f"/drafts/{DRAFT}").text


@pytest.mark.parametrize(("kept", "attribute"), [(True, 'data-kept="yes"'), (False, 'data-kept="no"')])
def test_two_answers_are_compared_by_default_and_experts_see_whether_the_specialist_learns(
    kept: bool, attribute: str
) -> None:
    world = World()
    world.registry.specialists = [specialist(keep_drafts=kept)]
    text = world.signed_in(Role.EXPERT).get("/ask").text
    assert re.findall(r'<option value="(draw|base)"', text) == ["draw", "base"]
    assert attribute in text and "become a row of its next preference dataset" in text
    assert "data-kept" not in world.signed_in(Role.CALLER).get("/ask").text


def test_ranking_and_specialists_pages_say_what_the_next_round_lacks() -> None:
    sentence = "9 ranked prompts; a round needs 42: 33 to go."
    world = World()
    entry = specialist(keep_drafts=True, stages=["sft", "dpo"])
    entry.round.sentence = sentence
    world.registry.specialists = [entry]
    expert = world.signed_in(Role.EXPERT)
    assert f'data-round="{sentence}"' in expert.get("/ask").text
    assert sentence in world.signed_in().get(f"/specialists/{NAME}").text


def test_a_draft_names_both_datasets_the_reward_adapter_and_the_round() -> None:
    world = World()
    trace = world.registry.traces[DRAFT]
    trace.adapter.round, trace.adapter.reward_adapter_digest = 2, "e" * 64
    trace.preference_dataset.CopyFrom(dataset(digest="f" * 64, documents=0, judgements=80))
    text = world.signed_in().get(f"/drafts/{DRAFT}").text
    assert "<dt>Round</dt><dd>2</dd>" in text and "Reward adapter" in text and "e" * 12 in text
    assert "<h2>Rankings</h2>" in text and "<dt>Judgements</dt><dd>80</dd>" in text


def test_learning_is_not_mentioned_without_the_registry() -> None:
    world = World()
    browser = world.browser()
    sign_in(browser, PASSWORD)
    world.registry.down = True
    text = browser.get("/ask").text
    assert "No answer from registry." in text and "data-kept" not in text


def test_a_draft_is_shown_without_inference() -> None:
    world = World()
    world.inference.down = True
    text = world.signed_in().get(f"/drafts/{DRAFT}").text
    assert "432 for training" in text and "inference" in text and "UNAVAILABLE" in text


def test_a_report_has_no_inline_style_and_its_tables_scroll_by_keyboard() -> None:
    world = World()
    world.evaluation.answers[ADAPTER].report_markdown = "| metric | base |\n|---|---:|\n| rougeL | 0.12 |\n"
    page = world.signed_in().get(f"/evaluations/{ADAPTER}").text
    assert "style=" not in page
    assert '<td class="n">0.12</td>' in page
    assert '<div class="scroll" tabindex="0"><table>' in page


def test_the_columns_that_decide_stand_next_to_the_metric() -> None:
    page = World().signed_in().get(f"/evaluations/{ADAPTER}").text
    head = page[page.index('<table class="scores">') :]
    assert head.index("Gain over") < head.index("Candidate") < head.index(">Base<") < head.index("Rows")


def test_the_gains_over_all_models_that_a_gate_wants_beaten_are_shown_with_intervals() -> None:
    world = World()
    figures = make_figures("rougeL", base=0.1, few_shot=0.24, incumbent=0.2, candidate=0.23)
    world.evaluation.answers[ADAPTER].result.CopyFrom(make_evaluated(ADAPTER, "engagement-reports", figures))
    page = world.signed_in().get(f"/evaluations/{ADAPTER}").text
    row = page[page.index("<td>ROUGE-L") :]
    cell = row[row.index('<td class="n">') : row.index("0.230")]
    for model, tone, gain in (("base", "up", "+0.130"), ("few shot", "down", "-0.010"), ("incumbent", "up", "+0.030")):
        assert f'{model} <span class="{tone}">{gain} (' in cell


def test_documents_of_other_specialists_cannot_be_seen() -> None:
    world = World()
    world.registry.specialists.append(
        edit(world.registry.specialists[0], specialist={"name": "another", "selection": {"sources": ["crm"]}})
    )
    everyone, own, other = (world.signed_in(Role.ENGINEER, *names) for names in ((), (NAME,), ("another",)))
    document_id = world.registry.documents[0].anonymized.document_id
    for path, statuses in {
        "/documents/rejected": (200, 403, 403),
        f"/documents/{document_id}": (200, 200, 404),
        "/documents?specialist=another": (200, 404, 200),
        "/audit?specialist=another": (200, 404, 200),
    }.items():
        assert tuple(browser.get(path).status_code for browser in (everyone, own, other)) == statuses, path
    world.registry.audited.clear()
    other.get("/audit")
    # Without a name, it is the first of the visitor's own specialists, not all.
    assert world.registry.audited == ["another"]
    page = other.get("/documents").text
    assert "learns from" in page and "/documents/rejected" not in page
    assert "/documents/rejected" in everyone.get("/documents").text
