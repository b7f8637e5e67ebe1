"""Runs as they go, mirrored to an MLflow tracking server where one is set. MLflow is never waited for: what it missed, it is told later."""

import os
import threading
from collections.abc import Iterator
from typing import Any

from services.training.domain import Progress, Run, RunState
from services.training.ports import Runs
from tailor.logging import get_logger

log = get_logger(__name__)

INTERVAL_SECONDS = 5.0
NEWEST_RUNS = 50
BATCH = 1000  # metrics that MLflow takes at once
ENDS = {RunState.SUCCEEDED: "FINISHED", RunState.FAILED: "FAILED", RunState.CANCELLED: "KILLED"}
METRICS = (
    "loss",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "remaining_seconds",
    "memory_bytes",
    "reward",
    "kl",
    "accuracy",
)
MEASURED = "held_out_loss"  # after the last step
RUN_TAG = "tailor.run_id"


class MlflowMirror:
    """Tells MLflow every report of the newest runs: an experiment for each specialist, an MLflow run for each run, found by its tag.

    A restarted service tells everything again; MLflow keeps the same metric at the same step and time once.
    """

    def __init__(self, runs: Runs, tracking_uri: str) -> None:
        # Nothing of a user's installation is told to MLflow's makers.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        from mlflow import MlflowClient

        self._runs = runs
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._ids: dict[str, str] = {}
        self._told: dict[str, int] = {}
        self._done: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Mirror until told to stop."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        while not stop.wait(INTERVAL_SECONDS):
            try:
                self.tell()
            except (MlflowException, RequestException) as error:
                log.warning("mlflow does not answer", error=type(error).__name__)

    def tell(self) -> None:
        """Tell what is new of every run that has started; raises what MLflow's client raises."""
        for run in self._runs.page("", NEWEST_RUNS, None):
            if run.start_time is not None and not (run.run_id in self._done and run.state.ended):
                self._done.discard(run.run_id)
                self._tell(run)

    def _tell(self, run: Run) -> None:
        mlflow_id = self._ids.get(run.run_id) or self._find_or_create(run)
        self._ids[run.run_id] = mlflow_id
        reports = self._runs.reports(run.run_id, self._told.get(run.run_id, 0))
        metrics = [metric for _, progress in reports for metric in _metrics(progress)]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(mlflow_id, metrics=metrics[start : start + BATCH])
        if reports:
            self._told[run.run_id] = reports[-1][0]
        if run.state.ended:
            self._client.set_tag(mlflow_id, "tailor.adapter", run.adapter_digest)
            self._client.set_tag(mlflow_id, "tailor.reason", run.reason)
            self._client.set_terminated(mlflow_id, ENDS[run.state])
            self._done.add(run.run_id)

    def _find_or_create(self, run: Run) -> str:
        from mlflow.entities import Param

        experiment = self._experiment(f"tailor/{run.key.specialist}")
        found = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.run_id}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        made = self._client.create_run(experiment, tags={RUN_TAG: run.run_id}, run_name=run.run_id)
        settings = {
            "base": run.key.base,
            "recipe": run.recipe,
            "recipe_digest": run.key.recipe_digest,
            "dataset_digest": run.key.dataset_digest,
        }
        self._client.log_batch(made.info.run_id, params=[Param(name, value) for name, value in settings.items()])
        return str(made.info.run_id)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))


def _metrics(progress: Progress) -> Iterator[Any]:
    from mlflow.entities import Metric

    moment = int(progress.create_time.timestamp() * 1000)
    for name in METRICS:
        value = getattr(progress, name)
        if progress.phase == "training" and value is not None:
            yield Metric(f"stage_{progress.stage}/{name}", float(value), moment, progress.step)
    if progress.held_out_loss is not None:
        yield Metric(f"stage_{progress.stage}/{MEASURED}", progress.held_out_loss, moment, progress.step)
