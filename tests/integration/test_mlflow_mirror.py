"""What MLflow is told, by MLflow's own client and store."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from services.training.adapters.mlflow_mirror import MlflowMirror
from services.training.domain import Progress, Run, RunState
from services.training.handlers import queue_run_for_dataset
from tests.unit.training.fakes import START, House, MemoryRuns, built
from tests.unit.training.fakes import progress as report

pytestmark = pytest.mark.integration


def progress(step: int, **figures: float) -> Progress:
    return report(step, loss=3.0 - step, create_time=START + timedelta(seconds=step), **figures)


def queued() -> Run:
    house = House()
    queue_run_for_dataset(house.ports, built())
    return house.only_run()


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_mlflow_is_told_every_report_once_and_how_the_run_ended(uri: str) -> None:
    from mlflow import MlflowClient

    runs = MemoryRuns()
    run = replace(queued(), state=RunState.RUNNING, start_time=START)
    runs.add(run)
    for step in (1, 2):
        runs.add_report(run, progress(step, reward=0.5 * step))
    MlflowMirror(runs, uri).mirror()
    # A restarted service tells everything again, and then what is new.
    again = MlflowMirror(runs, uri)
    again.mirror()
    runs.add_report(run, progress(3))
    runs.add_report(run, replace(progress(3), phase="saving", held_out_loss=0.25))
    runs.save(replace(run, state=RunState.SUCCEEDED, adapter_digest="a1"))
    again.mirror()

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(f"tailor/{run.key.specialist}")
    assert experiment is not None
    (told,) = client.search_runs([experiment.experiment_id])
    losses = client.get_metric_history(told.info.run_id, "stage_0/loss")
    rewards = client.get_metric_history(told.info.run_id, "stage_0/reward")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert [metric.value for metric in rewards] == [0.5, 1.0]
    assert told.data.metrics["stage_0/held_out_loss"] == 0.25
    assert told.data.metrics["stage_0/remaining_seconds"] == 10.0
    assert told.info.status == "FINISHED"
    assert told.data.tags["tailor.adapter"] == "a1"
    assert told.data.params["dataset_digest"] == run.key.dataset_digest


def test_a_run_that_waits_is_not_told(uri: str) -> None:
    from mlflow import MlflowClient

    runs = MemoryRuns()
    runs.add(queued())
    MlflowMirror(runs, uri).mirror()
    assert [found.name for found in MlflowClient(tracking_uri=uri).search_experiments()] == ["Default"]
