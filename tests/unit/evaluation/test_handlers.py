import threading

import pytest

from services.evaluation import handlers
from services.evaluation.domain import Score, Serving, State, choose_rows, perplexity
from tailor.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason
from tailor.storage.ref import Ref
from tests.unit.evaluation.fakes import FakeRows, adapter, down, make_app, row

RUNNING = threading.Event()


def measured(app: handlers.Evaluating, evaluation_id: str = "evl_1", digest: str = "ad1") -> handlers.Measured:
    handlers.on_adapter(app, adapter(digest), evaluation_id)
    assert handlers.work_once(app, RUNNING)
    outcome = app.repository.measured(evaluation_id)
    assert outcome is not None
    return outcome


def serving(digest: str = "ad0", generation: int = 1) -> Serving:
    return Serving("reports", generation, digest, Ref(f"s3://models/adapters/{digest}/manifest.json", digest, 1))


def test_measures_base_and_candidate_on_the_same_rows() -> None:
    app = make_app()
    outcome = measured(app)
    assert outcome.scores["base"]["rougeL"] == 0 and outcome.scores["candidate"]["rougeL"] == 1
    assert outcome.scores["base"]["perplexity"] == pytest.approx(7.389, abs=1e-3)
    assert outcome.scores["candidate"]["perplexity"] == pytest.approx(2.718, abs=1e-3)
    assert (outcome.rows, outcome.incumbent, set(outcome.scores)) == (4, None, {"base", "candidate"})
    assert app.models.asked.count("base") == app.models.asked.count("adapter:ad1") == 4
    assert app.repository.counts[-1] == app.repository.evaluations["evl_1"].rows_total == 8


def test_measures_what_serves_beside_them() -> None:
    app = make_app(serving={"reports": serving()})
    outcome = measured(app)
    assert (outcome.incumbent.adapter_digest, outcome.incumbent.generation) == ("ad0", 1)
    assert outcome.scores["incumbent"] | {"parity": 0.01} == outcome.scores["candidate"]
    assert app.models.loaded == {"adapter:ad0", "adapter:ad1"}


def test_the_candidates_parity_is_a_score_of_its_own() -> None:
    app = make_app()
    app.models.parity = 0.25
    outcome = measured(app)
    assert outcome.scores["candidate"]["parity"] == 0.25
    assert "parity" not in outcome.scores["base"]
    assert "0.2500 nats a token" in app.reports.markdown(outcome.report)


def test_an_adapter_without_probe_rows_has_no_parity_and_the_report_says_so() -> None:
    app = make_app()
    app.models.parity = None
    outcome = measured(app)
    assert "parity" not in outcome.scores["candidate"]
    assert "was not measured" in app.reports.markdown(outcome.report)


def test_an_incumbent_measured_on_the_same_rows_is_not_asked_again() -> None:
    app = make_app()
    measured(app, "evl_1", "ad0")
    handlers.on_serving(app, serving())
    outcome = measured(app, "evl_2", "ad1")
    assert "incumbent" in outcome.scores
    assert app.models.asked.count("adapter:ad0") == 4


def test_a_name_that_means_the_base_again_keeps_its_generation() -> None:
    outcome = measured(make_app(serving={"reports": Serving("reports", 3, "")}))
    assert (outcome.incumbent.generation, set(outcome.scores)) == (3, {"base", "candidate"})


def test_older_generations_and_revisions_are_ignored() -> None:
    app = make_app()
    handlers.on_serving(app, serving("new", 2))
    handlers.on_serving(app, serving("old", 1))
    assert app.serving["reports"].adapter_digest == "new"


def test_goes_on_when_inference_returns() -> None:
    app = make_app()
    app.models.failures = [down() for _ in range(12)]
    assert measured(app).scores["candidate"]["rougeL"] == 1


def test_a_candidate_that_inference_forgot_is_loaded_again() -> None:
    app = make_app()
    app.models.loaded.add("adapter:ad1")
    whole = app.models.generate

    def forget(model: str, messages: object, tokens: int) -> str:
        if model != "base" and "forgotten" not in app.models.scored:
            app.models.scored.append("forgotten")
            raise NotFound(Reason.UNKNOWN_MODEL, "There is no such model.")
        return whole(model, messages, tokens)

    app.models.generate = forget
    assert measured(app).scores["candidate"]["rougeL"] == 1


def test_a_killed_evaluation_goes_on_from_the_results_that_are_stored() -> None:
    app = make_app()
    whole, app.models.load = app.models.load, lambda digest, manifest: (_ for _ in ()).throw(SystemError("killed"))
    handlers.on_adapter(app, adapter(), "evl_1")
    with pytest.raises(SystemError):
        handlers.work_once(app, RUNNING)
    assert app.repository.evaluations["evl_1"].state is State.RUNNING
    app.models.load = whole
    assert handlers.work_once(app, RUNNING)
    assert app.repository.evaluations["evl_1"].state is State.SUCCEEDED
    assert app.repository.outcomes["evl_1"].scores["candidate"]["parity"] == 0.01
    assert app.models.asked.count("base") == 4


def test_one_that_always_crashes_is_given_up() -> None:
    app = make_app()
    app.models.load = lambda digest, manifest: (_ for _ in ()).throw(SystemError("killed"))
    handlers.on_adapter(app, adapter(), "evl_1")
    for _ in range(3):
        with pytest.raises(SystemError):
            handlers.work_once(app, RUNNING)
    assert handlers.work_once(app, RUNNING)
    assert app.repository.evaluations["evl_1"].reason == "STARTED_TOO_OFTEN"


def test_one_that_can_never_be_made_fails_with_its_reason() -> None:
    app = make_app(rows=FakeRows([]))
    handlers.on_adapter(app, adapter(), "evl_1")
    assert handlers.work_once(app, RUNNING)
    assert (app.repository.evaluations["evl_1"].state, app.repository.evaluations["evl_1"].reason) == (
        State.FAILED,
        "NO_HELD_OUT_ROWS",
    )
    bad = make_app()
    bad.models.failures = [FailedPrecondition(Reason.WRONG_BASE, "Another base.")] * 2
    handlers.on_adapter(bad, adapter(), "evl_1")
    handlers.work_once(bad, RUNNING)
    assert bad.repository.evaluations["evl_1"].reason == "WRONG_BASE"


def test_waiting_ends_after_a_while() -> None:
    clock = iter(range(0, 10_000, 60))
    app = make_app(now=lambda: next(clock))
    app.repository.datasets.clear()
    handlers.on_adapter(app, adapter(), "evl_1")
    handlers.work_once(app, RUNNING)
    assert app.repository.evaluations["evl_1"].reason == "UNKNOWN_DATASET"


def test_told_to_stop_it_is_left_for_the_next_start() -> None:
    app, stop = make_app(), threading.Event()
    app.repository.datasets.clear()
    stop.set()
    handlers.on_adapter(app, adapter(), "evl_1")
    assert handlers.work_once(app, stop)
    assert app.repository.evaluations["evl_1"].state is State.QUEUED


def test_an_adapter_is_queued_once_and_again_only_on_command() -> None:
    app = make_app()
    measured(app)
    handlers.on_adapter(app, adapter(), "evl_1")
    assert not handlers.work_once(app, RUNNING)
    assert handlers.evaluate(app, "ad1", "evl_2").state is State.QUEUED
    assert handlers.get_evaluation(app, "", "ad1").evaluation_id == "evl_2"
    handlers.on_adapter(app, adapter("ad2"), "evl_3")
    with pytest.raises(AlreadyExists):
        handlers.evaluate(app, "ad2", "evl_2")


def test_unknown_things_are_not_found() -> None:
    app = make_app()
    with pytest.raises(NotFound):
        handlers.evaluate(app, "ad9", "evl_1")
    with pytest.raises(NotFound):
        handlers.get_evaluation(app, "evl_9", "")
    with pytest.raises(InvalidArgument):
        handlers.get_evaluation(app, "", "")


def test_rows_are_spread_over_origins_in_the_order_of_their_ids() -> None:
    rows = [row(number) for number in range(10)] + [row(20, "example"), row(21, "question"), row(22, "question")]
    chosen = choose_rows(rows, 6)
    assert [one.row_id for one in chosen] == ["row_000", "row_001", "row_002", "row_020", "row_021", "row_022"]
    assert len(choose_rows(rows, 99)) == 13 and choose_rows([], 3) == []


def test_perplexity_is_over_all_tokens_and_finite() -> None:
    assert perplexity([Score(-1.0, 1), Score(-1.0, 3)]) == pytest.approx(1.6487, abs=1e-4)
    assert perplexity([Score(-1e9, 1)]) < float("inf")
