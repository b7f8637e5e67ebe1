"""Mirrors runs and the evaluations of their adapters to an MLflow tracking server. Training never waits for it: missed reports follow."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.training.adapters.sql import SqlRuns
from services.training.domain import Progress, Run, RunState
from tailor.api.events.v1 import models_pb2
from tailor.errors import Reason, Unavailable
from tailor.logging import get_logger

log = get_logger(__name__)

NEWEST_RUNS = 50
BATCH = 1000  # the most metrics that MLflow accepts at once
ENDS = {RunState.SUCCEEDED: "FINISHED", RunState.FAILED: "FAILED", RunState.CANCELLED: "KILLED"}
METRICS = (
    "loss",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "remaining_seconds",
    "memory_bytes",
)
OPTIONAL_METRICS = (
    "reward",
    "kl",
    "accuracy",
    "answer_tokens",
    "truncated_share",
    "unanswered_share",
    "held_out_reward",
    "held_out_agreement",
)
MEASURED = "held_out_loss"  # after the last step
RUN_TAG, ADAPTER_TAG = "tailor.run_id", "tailor.adapter"


class MlflowMirror:
    """Mirrors every report of the newest runs: one experiment per specialist, one MLflow run per run, found by its tag.

    A restarted service mirrors everything again; MLflow stores the same metric at the same step and time once.
    """

    def __init__(self, runs: SqlRuns, tracking_uri: str) -> None:
        self._runs = runs
        self._client = _connect(tracking_uri)
        self._ids: dict[str, str] = {}
        self._mirrored: dict[str, int] = {}
        self._done: set[str] = set()

    def mirror(self) -> None:
        """Send what is new of every run that has started. Blocks. Raises Unavailable while MLflow does not answer."""
        for run in self._runs.page(size=NEWEST_RUNS):
            if run.start_time is not None and not (run.run_id in self._done and run.state.ended):
                self._done.discard(run.run_id)
                with _client_errors():
                    self._mirror_run(run)

    def _mirror_run(self, run: Run) -> None:
        mlflow_id = self._ids.get(run.run_id) or self._find_or_create(run)
        self._ids[run.run_id] = mlflow_id
        reports = self._runs.reports(run.run_id, self._mirrored.get(run.run_id, 0))
        metrics = [metric for _, progress in reports for metric in _to_metrics(progress)]
        _write_metrics(self._client, mlflow_id, metrics)
        if reports:
            self._mirrored[run.run_id] = reports[-1][0]
        if run.state.ended:
            self._client.set_tag(mlflow_id, ADAPTER_TAG, run.adapter_digest)
            self._client.set_tag(mlflow_id, "tailor.reason", run.reason)
            self._client.set_terminated(mlflow_id, ENDS[run.state])
            self._done.add(run.run_id)

    def _find_or_create(self, run: Run) -> str:
        from mlflow.entities import Param

        experiment = self._find_experiment(f"tailor/{run.key.specialist}")
        existing = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.run_id}'", max_results=1)
        if existing:
            return str(existing[0].info.run_id)
        created = self._client.create_run(experiment, tags={RUN_TAG: run.run_id}, run_name=run.run_id)
        settings = {
            "base": run.key.base,
            "recipe": run.recipe,
            "recipe_digest": run.key.recipe_digest,
            "dataset_digest": run.key.dataset_digest,
        }
        self._client.log_batch(created.info.run_id, params=[Param(name, value) for name, value in settings.items()])
        return str(created.info.run_id)

    def _find_experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        return str(experiment.experiment_id if experiment else self._client.create_experiment(name))


class MlflowEvaluations:
    """Writes evaluations to the runs that `MlflowMirror` made. A repeated evaluation adds its values to the metrics' history.

    Links are below `console_url`; without it, they are paths.
    """

    def __init__(self, tracking_uri: str, console_url: str = "") -> None:
        self._client = _connect(tracking_uri)
        self._console_url = console_url.rstrip("/")

    def record(self, evaluation: models_pb2.AdapterEvaluated) -> None:
        """Write one evaluation. Blocks. Raises Unavailable while MLflow does not answer.

        An adapter whose run was never mirrored, such as one of before MLflow was set up, is left out."""
        with _client_errors():
            if run_id := self._find_run(evaluation):
                self._write(run_id, evaluation)
            else:
                log.warning("evaluation not mirrored: its run is not in MLflow", adapter=evaluation.adapter_digest)

    def _find_run(self, evaluation: models_pb2.AdapterEvaluated) -> str:
        experiment = self._client.get_experiment_by_name(f"tailor/{evaluation.specialist}")
        if experiment is None:
            return ""
        wanted = f"tags.`{ADAPTER_TAG}` = '{evaluation.adapter_digest}'"
        runs = self._client.search_runs([experiment.experiment_id], wanted, max_results=1)
        return str(runs[0].info.run_id) if runs else ""

    def _write(self, run_id: str, evaluation: models_pb2.AdapterEvaluated) -> None:
        _write_metrics(self._client, run_id, list(_to_estimates(evaluation)))
        self._client.set_tag(run_id, "tailor.evaluation", evaluation.evaluation_id)
        self._client.set_tag(run_id, "tailor.evaluation_rows", str(evaluation.rows))
        self._client.set_tag(run_id, "tailor.report", evaluation.report.uri)
        page = f"{self._console_url}/evaluations/{evaluation.adapter_digest}"
        self._client.set_tag(run_id, "tailor.console", page)


@contextmanager
def _client_errors() -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        raise Unavailable(Reason.UNAVAILABLE, f"MLflow does not answer ({type(error).__name__}).") from None


def _connect(tracking_uri: str) -> Any:
    # Do not send usage data to MLflow's makers.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)


def _write_metrics(client: Any, mlflow_id: str, metrics: list[Any]) -> None:
    for start in range(0, len(metrics), BATCH):
        client.log_batch(mlflow_id, metrics=metrics[start : start + BATCH])


def _to_metrics(progress: Progress) -> Iterator[Any]:
    from mlflow.entities import Metric

    message = models_pb2.RunProgressed.FromString(progress.message)
    moment = message.create_time.ToMilliseconds()
    names = [*METRICS, *(name for name in OPTIONAL_METRICS if message.HasField(name))]  # type: ignore[arg-type]
    for name in names if message.phase == "training" else []:
        yield Metric(f"stage_{message.stage}/{name}", float(getattr(message, name)), moment, message.step)
    if message.HasField("held_out_loss"):
        yield Metric(f"stage_{message.stage}/{MEASURED}", message.held_out_loss, moment, message.step)


def _to_estimates(evaluation: models_pb2.AdapterEvaluated) -> Iterator[Any]:
    """Value, low and high of every model and gain. MLflow takes no infinite ends of intervals, so those are left out."""
    from mlflow.entities import Metric

    moment = evaluation.create_time.ToMilliseconds()
    for figures in (*evaluation.metrics, *evaluation.suites):
        named = {f"evaluation/{figures.metric}/{model}": item for model, item in figures.models.items()}
        named |= {f"evaluation/{figures.metric}/gain_over_{model}": item for model, item in figures.gains.items()}
        for name, estimate in named.items():
            for end, value in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high)):
                if math.isfinite(value):
                    yield Metric(f"{name.replace(':', '_')}{end}", value, moment, 0)
