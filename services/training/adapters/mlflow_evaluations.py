"""Adds an adapter's evaluation to its run in MLflow: every estimate with its interval, and where the report is."""

import math
import os
from collections.abc import Iterator
from typing import Any

from tailor.api.events.v1 import models_pb2
from tailor.errors import Reason, Unavailable
from tailor.logging import get_logger

log = get_logger(__name__)

ADAPTER_TAG = "tailor.adapter"
BATCH = 1000  # the most metrics that MLflow accepts at once


class MlflowEvaluations:
    """Writes evaluations to the runs that `MlflowMirror` made. A repeated evaluation adds its values to the metrics' history.

    Links are below `console_url`; without it, they are paths.
    """

    def __init__(self, tracking_uri: str, console_url: str = "") -> None:
        # Do not send usage data to MLflow's makers.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._console_url = console_url.rstrip("/")

    def record(self, evaluation: models_pb2.AdapterEvaluated) -> None:
        """Write one evaluation. Blocks. Raises Unavailable while MLflow does not answer.

        An adapter whose run was never mirrored, such as one of before MLflow was set up, is left out."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            run_id = self._find_run(evaluation)
            if not run_id:
                log.warning("evaluation not mirrored: its run is not in MLflow", adapter=evaluation.adapter_digest)
                return
            self._write(run_id, evaluation)
        except (MlflowException, RequestException) as error:
            raise Unavailable(Reason.UNAVAILABLE, f"MLflow does not answer ({type(error).__name__}).") from None

    def _find_run(self, evaluation: models_pb2.AdapterEvaluated) -> str:
        experiment = self._client.get_experiment_by_name(f"tailor/{evaluation.specialist}")
        if experiment is None:
            return ""
        wanted = f"tags.`{ADAPTER_TAG}` = '{evaluation.adapter_digest}'"
        runs = self._client.search_runs([experiment.experiment_id], wanted, max_results=1)
        return str(runs[0].info.run_id) if runs else ""

    def _write(self, run_id: str, evaluation: models_pb2.AdapterEvaluated) -> None:
        metrics = list(_to_metrics(evaluation))
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + BATCH])
        self._client.set_tag(run_id, "tailor.evaluation", evaluation.evaluation_id)
        self._client.set_tag(run_id, "tailor.evaluation_rows", str(evaluation.rows))
        self._client.set_tag(run_id, "tailor.report", evaluation.report.uri)
        page = f"{self._console_url}/evaluations/{evaluation.adapter_digest}"
        self._client.set_tag(run_id, "tailor.console", page)


def _to_metrics(evaluation: models_pb2.AdapterEvaluated) -> Iterator[Any]:
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
