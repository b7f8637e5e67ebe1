"""Runs in MLflow, read back through MLflow's own client and store."""

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.training.adapters.mlflow_mirror import MlflowEvaluations, MlflowMirror
from services.training.domain import Progress, Run, RunState
from services.training.settings import Settings
from tailor.wire import from_datetime
from tests.evaluations import make_evaluated, make_figures
from tests.integration.training_service import House, training_service
from tests.unit.training.fakes import START, make_run
from tests.unit.training.fakes import progress as report

pytestmark = pytest.mark.integration


def progress(step: int, **figures: Any) -> Progress:
    moment = from_datetime(START + timedelta(seconds=step))
    return report(step, **{"loss": 3.0 - step, "create_time": moment, **figures})


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    with training_service(database_url, tmp_path) as house:
        yield house


def add(house: House, **changes: Any) -> Run:
    run = make_run(**changes)
    with house.runs.unit() as unit:
        assert unit.add(run)
    return run


def change(house: House, run: Run, *reports: Progress, **changes: Any) -> None:
    with house.runs.unit() as unit:
        for progress in reports:
            unit.add_report(run, progress)
        unit.save(replace(run, **changes))


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_every_report_and_the_end_of_a_run_are_mirrored_once_and_a_queued_run_is_not(house: House, uri: str) -> None:
    from mlflow import MlflowClient

    run = add(house)
    MlflowMirror(house.runs, uri).mirror()
    client = MlflowClient(tracking_uri=uri)
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    run = replace(run, state=RunState.RUNNING, start_time=START)
    change(house, run, *(progress(step, reward=0.5 * step) for step in (1, 2)))
    MlflowMirror(house.runs, uri).mirror()
    # A restarted service mirrors everything again, and then what is new.
    restarted = MlflowMirror(house.runs, uri)
    restarted.mirror()
    proved = progress(3, phase="saving", held_out_loss=0.25)
    change(house, run, progress(3), proved, state=RunState.SUCCEEDED, adapter_digest="a1")
    restarted.mirror()

    experiment = client.get_experiment_by_name(f"tailor/{run.key.specialist}")
    assert experiment is not None
    (mirrored,) = client.search_runs([experiment.experiment_id])
    losses = client.get_metric_history(mirrored.info.run_id, "stage_0/loss")
    rewards = client.get_metric_history(mirrored.info.run_id, "stage_0/reward")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert [metric.value for metric in rewards] == [0.5, 1.0]
    assert mirrored.data.metrics["stage_0/held_out_loss"] == 0.25
    assert mirrored.data.metrics["stage_0/remaining_seconds"] == 10.0
    assert mirrored.info.status == "FINISHED"
    assert mirrored.data.tags["tailor.adapter"] == "a1"
    assert mirrored.data.params["dataset_digest"] == run.key.dataset_digest


def test_an_evaluation_joins_the_run_of_its_adapter_with_intervals_and_links(house: House, uri: str) -> None:
    from mlflow import MlflowClient

    run = add(house, state=RunState.SUCCEEDED, start_time=START, adapter_digest="a1")
    MlflowMirror(house.runs, uri).mirror()
    models: dict[str, Any] = {"base": 0.1, "candidate": 0.3, "external:paid": 0.2}
    figures = make_figures("rougeL", **models)
    evaluation = make_evaluated("a1", run.key.specialist, figures)
    evaluation.metrics[0].gains["base"].low = -math.inf
    evaluation.report.uri = "s3://reports/evl_a1/report.json"

    MlflowEvaluations(uri).record(evaluation)
    MlflowEvaluations(uri).record(make_evaluated("unknown", run.key.specialist, figures))

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(f"tailor/{run.key.specialist}")
    assert experiment is not None
    (mirrored,) = client.search_runs([experiment.experiment_id])
    metrics, tags = mirrored.data.metrics, mirrored.data.tags
    assert metrics["evaluation/rougeL/candidate"] == pytest.approx(0.3)
    assert metrics["evaluation/rougeL/external_paid_low"] == pytest.approx(0.195)
    assert metrics["evaluation/rougeL/gain_over_base_high"] == pytest.approx(0.205)
    assert "evaluation/rougeL/gain_over_base_low" not in metrics
    assert tags["tailor.report"] == "s3://reports/evl_a1/report.json"
    assert tags["tailor.console"] == "/evaluations/a1"
    MlflowEvaluations(uri, "https://tailor.example/").record(evaluation)
    (mirrored,) = client.search_runs([experiment.experiment_id])
    assert mirrored.data.tags["tailor.console"] == "https://tailor.example/evaluations/a1"


@pytest.mark.parametrize("address", ["tailor.example.com", "javascript:alert(1)", "https://tailor.example.com /x"])
def test_an_address_of_the_console_that_makes_no_link_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="console_url"):
        Settings(console_url=address)
