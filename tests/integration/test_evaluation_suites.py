"""The suites of an evaluation, run by the worker."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from services.evaluation.adapters import tables
from services.evaluation.domain import BASE, CANDIDATE
from services.evaluation.suites.suite import read_items
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.sql import transaction
from tailor.storage.buckets import REPORTS
from tailor.values import EvaluationPolicy
from tests.databases import Databases
from tests.integration.evaluation_house import House, MakeHouse, houses
from tests.unit.evaluation.suites.probes import MemoryProbes

pytestmark = pytest.mark.integration

ITEMS = 16


@pytest.fixture
def make_house(databases: Databases) -> Iterator[MakeHouse]:
    with houses(databases) as make:
        yield make


def with_suites(make_house: MakeHouse, *suites: str, failure: Exception | None = None, **changes: Any) -> House:
    """A house whose specialist names these suites, or none for all. Counting true values first fails with `failure`."""
    probes = MemoryProbes()
    probes.failures = [failure] if failure else []
    house = make_house(probes=probes, **changes)
    name_suites(house, *suites)
    return house


def name_suites(house: House, *suites: str) -> None:
    house.change_terms(evaluation=EvaluationPolicy(suites=suites, max_suite_items=ITEMS))


def suites_of(result: Any) -> set[str]:
    return {figures.metric.partition(".")[0] for figures in result.suites}


def read_report(house: House, evaluation_id: str = "evl_1") -> Any:
    return json.loads(house.store.read(REPORTS, f"{evaluation_id}/report.json"))


def test_every_suite_runs_unless_the_specialist_names_some(make_house: MakeHouse) -> None:
    house = with_suites(make_house)
    result = house.evaluate()
    assert suites_of(result) == {"parity", "forgetting", "safety", "memorisation"}
    figures = {figures.metric: figures for figures in result.suites}
    text = figures["forgetting.text"]
    assert (text.models[BASE].value, text.models[CANDIDATE].value) == (-2.0, -1.0)
    assert text.gains[BASE].value == 1.0
    assert figures["memorisation.memorised"].models[CANDIDATE].value == 1
    assert figures["memorisation.memorised"].gains[BASE].value == -1
    assert result.not_measured["memorisation.exposure"] == "No secret was planted."
    # The base is asked once for all evaluations, and the candidate in each, except about documents.
    calls = list(house.models.calls)
    name_suites(house, "forgetting", "safety")
    result = house.evaluate("evl_2")
    assert suites_of(result) == {"parity", "forgetting", "safety"}
    again = house.models.calls[len(calls) :]
    assert again.count("base") == 0 and again.count("adapter:ad1") > 0
    stored = house.models.calls.count("adapter:ad1")
    name_suites(house, "memorisation", "safety")
    house.evaluate("evl_3")
    assert house.models.calls.count("adapter:ad1") > stored
    assert list(read_report(house, "evl_3")["suite_seconds"]) == ["safety", "memorisation"]
    assert read_report(house, "evl_3")["suite_details"]["memorisation"]["true_values"] == {"PERSON": 1}


def test_an_interrupted_evaluation_continues_and_answers_about_documents_are_not_stored(make_house: MakeHouse) -> None:
    failure = Unavailable(Reason("ANONYMIZATION_UNAVAILABLE"), "Down.")
    house = with_suites(make_house, "safety", "memorisation", failure=failure)
    assert house.evaluate().suites
    # Four rows; each item of safety once; the train prompt twice.
    assert house.models.calls.count("base") == 4 + ITEMS + 2
    with transaction(house.engine) as connection:
        answers = connection.scalars(select(tables.results.c.answers)).all()
    assert "line of sight 7" not in [answer["text"] for found in answers for answer in found if answer]


def test_a_suite_that_cannot_be_measured_is_skipped_with_its_reason(make_house: MakeHouse) -> None:
    failure = FailedPrecondition(Reason.INVALID_DATASET, "Build it again.")
    result = with_suites(make_house, "memorisation", "safety", failure=failure).evaluate()
    assert result.not_measured["memorisation"] == "INVALID_DATASET: Build it again."
    assert suites_of(result) == {"parity", "safety"}


@pytest.mark.parametrize("name", ["forgetting", "safety"])
def test_a_limit_bounds_what_each_model_is_asked(make_house: MakeHouse, name: str) -> None:
    house = with_suites(make_house, name)
    house.evaluate()
    for model in ("base", "adapter:ad1"):
        asked = house.models.calls.count(model) - 4
        scored = house.models.scored.count(model) - 4
        requests = scored // 4 if name == "safety" else 0
        assert asked + (0 if name == "safety" else scored) == ITEMS
        assert requests <= len(read_items("harmful"))
