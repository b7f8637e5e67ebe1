"""Runs in MLflow, read back through MLflow's own client and store."""

import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.training.adapters.mlflow_evaluations import MlflowEvaluations
from services.training.adapters.mlflow_mirror import MlflowMirror
from services.training.domain import Progress, Run, RunState
from services.training.pipeline import queue_run_for_dataset
from services.training.settings import Settings
from tailor.wire import from_datetime
from tests.evaluations import make_evaluated, make_figures
from tests.unit.training.fakes import START, House, MemoryRuns, built
from tests.unit.training.fakes import progress as report

pytestmark = pytest.mark.integration


def progress(step: int, **figures: Any) -> Progress:
    moment = from_datetime(START + timedelta(seconds=step))
    return report(step, **{"loss": 3.0 - step, "create_time": moment, **figures})


def queued() -> Run:
    house = House()
    queue_run_for_dataset(house.ports, built())
    return house.only_run()


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_every_report_and_the_end_of_a_run_are_mirrored_once(uri: str) -> None:
    from mlflow import MlflowClient

    runs = MemoryRuns()
    run = replace(queued(), state=RunState.RUNNING, start_time=START)
    runs.add(run)
    for step in (1, 2):
        runs.add_report(run, progress(step, reward=0.5 * step))
    MlflowMirror(runs, uri).mirror()
    # A restarted service mirrors everything again, and then what is new.
    restarted = MlflowMirror(runs, uri)
    restarted.mirror()
    runs.add_report(run, progress(3))
    runs.add_report(run, progress(3, phase="saving", held_out_loss=0.25))
    runs.save(replace(run, state=RunState.SUCCEEDED, adapter_digest="a1"))
    restarted.mirror()

    client = MlflowClient(tracking_uri=uri)
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


def test_queued_run_is_not_mirrored(uri: str) -> None:
    from mlflow import MlflowClient

    runs = MemoryRuns()
    runs.add(queued())
    MlflowMirror(runs, uri).mirror()
    assert [experiment.name for experiment in MlflowClient(tracking_uri=uri).search_experiments()] == ["Default"]


def test_an_evaluation_joins_the_run_of_its_adapter_with_intervals_and_links(uri: str) -> None:
    from mlflow import MlflowClient

    runs = MemoryRuns()
    run = replace(queued(), state=RunState.RUNNING, start_time=START)
    runs.add(run)
    runs.save(replace(run, state=RunState.SUCCEEDED, adapter_digest="a1"))
    MlflowMirror(runs, uri).mirror()
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
