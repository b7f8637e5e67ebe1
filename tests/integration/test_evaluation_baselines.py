"""Baselines in an evaluation: which models there are, what is asked again, and where their figures arrive."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.evaluation.baseline_models import BaselineModels, PromptSearch
from services.evaluation.baselines.costs import HourPrice, PricePerToken, Prices
from services.evaluation.baselines.external import ExternalLimits
from services.evaluation.baselines.few_shot import FewShotModel
from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.domain import Adapter, Answer, HeldOutRow, HeldOutSet
from services.evaluation.ports import ChatEndpoint, EvaluatedModel
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.storage.memory import MemoryStore
from tailor.values import EvaluationPolicy, MetricDefinition, SamplingDefaults
from tests.databases import Databases
from tests.integration.evaluation_house import House, MakeHouse, houses, make_serving
from tests.unit.evaluation.fakes import make_adapter, make_pair, make_row
from tests.unit.evaluation.test_few_shot import opener

pytestmark = pytest.mark.integration


@pytest.fixture
def make_house(databases: Databases) -> Iterator[MakeHouse]:
    with houses(databases) as make:
        yield make


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


def with_baselines(
    make_house: MakeHouse, external: Mapping[str, ChatEndpoint], reflection: str = "", **policy: Any
) -> House:
    """A house whose specialist has this policy."""
    house = make_house()
    house.change_terms(metrics=(MetricDefinition("rougeL", "rougeL"),), evaluation=EvaluationPolicy(**policy))
    train = [replace(make_row(number), row_id=f"train_{number}") for number in range(10, 15)]
    source = BaselineModels(
        models=house.models,
        artifacts=house.artifacts,
        open_rows=opener(train),
        search=PromptSearch(PromptStore(MemoryStore()), reflection=reflection),
        external=external,
        limits=ExternalLimits(attempts=1),
    )
    prices = Prices({"external:gpt": PricePerToken(2.0, 10.0, "EUR")}, HourPrice(3.6, "USD"))
    house.employ(replace(house.worker, list_models=source.list_models, prices=prices))
    return house


def list_models(house: House, adapter: Adapter, *rows: HeldOutRow) -> Sequence[EvaluatedModel]:
    terms, held_out = house.specialists.terms["reports"], HeldOutSet(rows, frozenset(), len(rows))
    models: Sequence[EvaluatedModel] = house.worker.list_models(adapter, terms, make_serving(), held_out)
    return models


def test_the_models_stand_in_order_and_by_policy(make_house: MakeHouse) -> None:
    policy: dict[str, Any] = {"optimize_prompt": True, "external_models": ("gpt", "other")}
    house = with_baselines(make_house, {"gpt": Endpoint()}, **policy)
    names = [model.name for model in list_models(house, make_adapter(), make_row(1))]
    assert names == ["base", "few_shot", "prompt", "external:gpt", "external:other", "incumbent", "candidate"]
    # For pairs, examples also come from the dataset of documents.
    house.artifacts.adapters.add(make_adapter("ad0"))
    house.add_pairs("pairs1")
    tuned = make_adapter("ad1", dataset_digest="pairs1", parent_digest="ad0")
    few_shot = list_models(house, tuned, make_pair(1), make_row(1))[1]
    assert isinstance(few_shot, FewShotModel) and few_shot.data.digests == ["data1", "pairs1"]


def test_figures_gains_prices_and_examples_arrive_and_a_later_candidate_asks_no_baseline_again(
    make_house: MakeHouse,
) -> None:
    endpoint = Endpoint()
    house = with_baselines(make_house, {"gpt": endpoint}, external_models=("gpt",))
    result = house.evaluate()
    (rouge,) = [figures for figures in result.metrics if figures.metric == "rougeL"]
    assert set(rouge.models) == {"base", "few_shot", "external:gpt", "candidate"}
    assert set(rouge.gains) == set(rouge.models) - {"candidate"} and rouge.gains["few_shot"].low > 0
    costs: dict[str, Any] = {cost.model: (cost.price_per_1000, cost.currency) for cost in result.costs}
    assert list(costs) == ["base", "few_shot", "external:gpt", "candidate"]
    assert costs["external:gpt"] == (pytest.approx(3.0), "EUR")
    # Two at a time: half a second of the machine for each answer of the candidate, a quarter for those of the base.
    assert costs["candidate"] == (pytest.approx(0.5), "USD")
    assert costs["few_shot"] == costs["base"] == (pytest.approx(0.25), "USD")
    report = json.loads(house.store.read("reports", "evl_1/report.json"))
    assert report["notes"]["few_shot"]["rows by examples"] == {"3": 4}
    assert set(report["notes"]["few_shot"]["document_ids"]) <= {f"doc_{number}" for number in range(10, 15)}
    quoted = report["notes"]["few_shot"]["document_ids"][0]
    assert house.reports.quotes("evl_1", quoted) and not house.reports.quotes("evl_1", "doc_99")
    assert "few_shot: rows by examples 3: 4." in house.page(result)
    asked = len(house.models.calls)
    second = house.evaluate("evl_2", "ad2")
    assert set(house.models.calls[asked:]) == {"adapter:ad2"} and endpoint.calls == 4
    assert "external:gpt" in second.metrics[1].models
    # Another sampling, prompt or number of examples asks again.
    changes: list[dict[str, Any]] = [
        {"sampling": SamplingDefaults(repetition_penalty=1.05)},
        {"evaluation": EvaluationPolicy(guidelines="Be brief.")},
        {"evaluation": EvaluationPolicy(few_shot=1)},
    ]
    for number, change in enumerate(changes, 3):
        asked = len(house.models.calls)
        house.change_terms(**change)
        house.evaluate(f"evl_{number}", f"ad{number}")
        assert "base" in house.models.calls[asked:]


def test_a_baseline_that_cannot_be_asked_is_skipped_with_the_reason(make_house: MakeHouse) -> None:
    no_quota = Endpoint(FailedPrecondition(Reason.EXTERNAL_QUOTA, "No quota left."))
    down = Endpoint(Unavailable(Reason.EXTERNAL_UNAVAILABLE, "Down."))
    house = with_baselines(
        make_house,
        {"gpt": no_quota, "reflection": down},
        "reflection",
        external_models=("gpt", "unknown"),
        optimize_prompt=True,
    )
    result = house.evaluate()
    assert set(result.not_measured) == {"external:gpt", "external:unknown", "prompt"}
    assert "No quota left." in result.not_measured["external:gpt"]
    assert "TAILOR_EXTERNAL_MODELS" in result.not_measured["external:unknown"]
    assert "Down. Attempts: 1." in result.not_measured["prompt"]
    assert not {"external:gpt", "prompt"} & set(result.metrics[1].models)
