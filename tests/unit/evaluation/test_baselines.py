"""Baselines in an evaluation: which models there are, what is asked again, and where their figures arrive."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from services.evaluation.baselines.choose import BaselineModels, PromptSearch
from services.evaluation.baselines.costs import HourPrice, PricePerToken, Prices
from services.evaluation.baselines.external import ExternalLimits
from services.evaluation.baselines.few_shot import FewShotModel
from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.domain import Answer, HeldOutSet, ModelCost, ModelResult, Serving, Specialists
from services.evaluation.figures import measure_cost
from services.evaluation.ports import ChatEndpoint
from services.evaluation.report import ReportStore
from services.evaluation.settings import Settings
from tailor.api.events.v1 import models_pb2
from tailor.codec import decode, encode
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import EvaluationPolicy, SamplingDefaults
from tests.unit.evaluation.fakes import MANIFEST, make_adapter, make_pair, make_row, make_terms, make_worker
from tests.unit.evaluation.test_few_shot import Rows


class Endpoint(ChatEndpoint):
    """Answers every prompt, or raises `failure`."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.calls = 0

    @property
    def address(self) -> str:
        return "https://example.com/v1"

    @property
    def model(self) -> str:
        return "large"

    def complete(self, messages: Sequence[tuple[str, str]], sampling: SamplingDefaults) -> Answer:
        self.calls += 1
        if self.failure:
            raise self.failure
        return Answer("line of sight", seconds=2.0, prompt_tokens=1000, tokens=100)


def with_baselines(external: Mapping[str, ChatEndpoint], prices: Prices | None = None, **policy: Any) -> Any:
    """A worker whose specialist has this policy."""
    worker = make_worker(prices=prices or Prices())
    terms = make_terms("rougeL", evaluation=EvaluationPolicy(**policy))
    train = [replace(make_row(number), row_id=f"train_{number}") for number in range(10, 15)]
    source = BaselineModels(
        models=worker.models,
        artifacts=worker.artifacts,
        rows=Rows(train),
        search=PromptSearch(PromptStore(MemoryStore())),
        external=external,
    )
    return replace(worker, source=source, specialists=Specialists({"reports": terms}))


def evaluate(worker: Any, digest: str = "ad1") -> Any:
    evaluation = worker.evaluations.queue(f"evl_{digest}", make_adapter(digest))
    return worker.evaluate(evaluation)


def test_the_models_stand_in_order_and_by_policy() -> None:
    worker = with_baselines({"gpt": Endpoint()}, optimize_prompt=True, external_models=("gpt", "other"))
    incumbent = Serving("reports", 3, "ad0", Ref("s3://models/ad0", "ad0", 1))
    held_out = HeldOutSet((make_row(1),), frozenset(), 1)
    terms = worker.specialists.terms["reports"]
    models = worker.source.list_models(make_adapter(), terms, incumbent, held_out)
    assert [model.name for model in models] == [
        "base",
        "few_shot",
        "prompt",
        "external:gpt",
        "external:other",
        "incumbent",
        "candidate",
    ]


def test_few_shots_figures_and_gains_arrive_with_every_evaluation() -> None:
    result = evaluate(with_baselines({}))
    (rouge,) = [figures for figures in result.metrics if figures.metric == "rougeL"]
    assert set(rouge.models) == {"base", "few_shot", "candidate"}
    assert set(rouge.gains) == {"base", "few_shot"}
    assert rouge.gains["few_shot"].low > 0
    assert [cost.model for cost in result.costs] == ["base", "few_shot", "candidate"]


def test_a_second_candidate_on_the_same_rows_asks_no_baseline_again() -> None:
    endpoint = Endpoint()
    worker = with_baselines({"gpt": endpoint}, external_models=("gpt",))
    evaluate(worker)
    asked = len(worker.models.calls)

    second = evaluate(worker, "ad2")

    assert set(worker.models.calls[asked:]) == {"adapter:ad2"}
    assert endpoint.calls == 4
    assert "external:gpt" in second.metrics[1].models


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": SamplingDefaults(repetition_penalty=1.05)},
        {"evaluation": EvaluationPolicy(guidelines="Be brief.")},
        {"evaluation": EvaluationPolicy(few_shot=1)},
    ],
)
def test_another_sampling_prompt_or_number_of_examples_asks_again(changes: dict[str, Any]) -> None:
    worker = with_baselines({})
    evaluate(worker)
    asked = len(worker.models.calls)
    worker.specialists.terms["reports"] = replace(worker.specialists.terms["reports"], **changes)

    evaluate(worker, "ad2")

    assert "base" in worker.models.calls[asked:]


@pytest.mark.parametrize(
    ("external", "reason"),
    [
        ({}, "TAILOR_EXTERNAL_MODELS"),
        ({"gpt": Endpoint(FailedPrecondition(Reason.EXTERNAL_QUOTA, "No quota left."))}, "No quota left."),
    ],
)
def test_an_external_model_that_cannot_be_asked_is_skipped_with_the_reason(
    external: dict[str, ChatEndpoint], reason: str
) -> None:
    result = evaluate(with_baselines(external, external_models=("gpt",)))
    assert reason in result.not_measured["external:gpt"]
    assert "external:gpt" not in result.metrics[1].models


def test_answers_that_were_cut_at_the_maximum_of_tokens_are_counted() -> None:
    answers = (Answer("It ends"), Answer("It goes on and", finished=False), None)
    cost = measure_cost("candidate", ModelResult(answers, (None, None, None)))
    assert (cost.answers, cost.cut_answers) == (2, 1)
    assert decode(ModelCost, encode(models_pb2.ModelCost, cost)) == cost


def test_answers_have_prices_by_tokens_or_by_the_hour() -> None:
    prices = Prices({"external:gpt": PricePerToken(2.0, 10.0, "EUR")}, HourPrice(3.6, "USD"))
    result = evaluate(with_baselines({"gpt": Endpoint()}, prices, external_models=("gpt",)))
    costs = {cost.model: (cost.price_per_1000, cost.currency) for cost in result.costs}
    assert costs["external:gpt"] == (pytest.approx(3.0), "EUR")
    # Two at a time: half a second of the machine for each answer of the candidate, a quarter for those of the base.
    assert costs["candidate"] == (pytest.approx(0.5), "USD")
    assert costs["few_shot"] == costs["base"] == (pytest.approx(0.25), "USD")


def test_the_report_names_the_documents_of_the_examples_and_counts_them() -> None:
    worker = with_baselines({})
    store = MemoryStore()
    worker = replace(worker, reports=ReportStore(store))
    evaluate(worker)
    report = json.loads(store.read("reports", "evl_ad1/report.json"))
    assert report["notes"]["few_shot"]["rows by examples"] == {"3": 4}
    assert set(report["notes"]["few_shot"]["document_ids"]) <= {f"doc_{number}" for number in range(10, 15)}
    quoted = report["notes"]["few_shot"]["document_ids"][0]
    assert worker.reports.quotes("evl_ad1", quoted) and not worker.reports.quotes("evl_ad1", "doc_99")
    assert "few_shot: rows by examples 3: 4." in store.read("reports", "evl_ad1/report.md").decode()


def test_for_pairs_examples_also_come_from_the_documents_dataset() -> None:
    worker = with_baselines({})
    parent = make_adapter("ad0")
    worker.artifacts.add_adapter(parent)
    worker.artifacts.add_dataset("pairs1", MANIFEST)
    adapter = replace(make_adapter("ad1"), dataset_digest="pairs1", parent_digest="ad0")
    held_out = HeldOutSet((make_pair(1), make_row(1)), frozenset(), 2)
    few_shot = worker.source.list_models(adapter, worker.specialists.terms["reports"], None, held_out)[1]
    assert isinstance(few_shot, FewShotModel) and few_shot.data.digests == ["data1", "pairs1"]


def test_settings_give_models_prices_and_keys() -> None:
    settings = Settings(
        external_models={"gpt": {"base_url": "https://h/v1", "model": "m", "price_input": 2, "price_output": 8}},
        external_model_keys={"gpt": "sk-secret"},
        inference_price_hour=1.5,
    )
    assert settings.prices == Prices({"external:gpt": PricePerToken(2, 8, "EUR")}, HourPrice(1.5, "EUR"))
    assert "sk-secret" not in repr(settings)


@pytest.mark.parametrize("changes", [{"reflection_model": "gpt"}, {"external_model_keys": {"gpt": "sk-secret"}}])
def test_settings_refuse_a_name_without_an_external_model_and_show_no_key(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="external_models has no gpt") as caught:
        Settings(**changes)
    assert "sk-secret" not in str(caught.value)


def test_an_external_reflection_model_that_fails_leaves_out_the_prompt_only() -> None:
    failure = Unavailable(Reason.EXTERNAL_UNAVAILABLE, "Down.")
    worker = with_baselines({"gpt": Endpoint(failure)}, optimize_prompt=True)
    limits = ExternalLimits(attempts=1)
    search = replace(worker.source.search, reflection="gpt")
    worker = replace(worker, source=replace(worker.source, search=search, limits=limits))
    result = evaluate(worker)
    assert set(result.not_measured) == {"prompt"}
    assert "Down. Attempts: 1." in result.not_measured["prompt"]
