"""Runs one worker: downloads the inputs, trains, checks the saved weights against the trained model, stores the result and reports it.

The recipe's method decides what is trained, and how.
"""

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from services.training.adapters.inputs import Inputs, download_inputs
from services.training.bases.capabilities import read_capabilities
from services.training.domain import RETRIABLE_EXIT
from services.training.methods import dpo, engine, reward, rollouts, sft, sweep
from services.training.methods.base import (
    Meter,
    Method,
    Prepared,
    StageContext,
    Stopper,
    remove_printers,
    retry_dependency,
)
from services.training.methods.callers_first import make_way
from services.training.methods.loading import hide_unused_packages, keep_in_f32
from services.training.methods.memory import free_memory, peak_bytes
from services.training.methods.processes import Processes, gather_model, join
from services.training.methods.stage_results import StageNotes
from services.training.recipe import Recipe
from services.training.settings import WorkerSettings
from services.training.spec import WorkerSpec
from services.training.worker import reload_check, results
from services.training.worker.checkpoints import Checkpoints
from services.training.worker.reload_check import OUT_OF_MEMORY, Figures
from services.training.worker.reporter import LogLines, NullReporter, Reporter, connect
from tailor.api.events.v1 import models_pb2
from tailor.chat import Encoded
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, Reason, TailorError
from tailor.logging import describe_error, get_logger
from tailor.rpc.identity import Identity
from tailor.storage.protocol import ObjectStore
from tailor.storage.s3 import S3Store
from tailor.wire import from_ref, now

log = get_logger(__name__)

REPORT_SECONDS = 600.0
# What libraries raise for a base or a recipe that they do not know, as opposed to a lost dependency or a lack of memory.
DEFECTS = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError, ImportError)
KINDS = {"policy": models_pb2.ADAPTER_KIND_POLICY, "reward": models_pb2.ADAPTER_KIND_REWARD}

METHODS: Mapping[str, Method] = {
    "sft": sft.prepare,
    "dpo": dpo.prepare,
    "reward": reward.prepare,
    "rloo": rollouts.prepare,
    "grpo": rollouts.prepare,
    "sweep": sweep.prepare,
}


@dataclass(frozen=True)
class TrainedModel:
    """A model that was trained to the end, without the trainer's autocast, and its metrics.

    `steps` were done. `stopped_because` says why they were not all; empty if they were.
    """

    model: Any
    prepared: Prepared
    metrics: Mapping[str, float]
    steps: int
    stopped_because: str = ""


@dataclass(frozen=True)
class SavedModel:
    """A trained model in a folder, and what the reloaded one must compute for `rows`, of which the probes are the first.

    `unserved` says why inference cannot load it; empty if it can.
    """

    weights: Path
    kind: str
    unserved: str
    figures: models_pb2.AdapterTrained
    rows: Sequence[Encoded]
    expected: Figures


def explain_failure(error: Exception, *, alone: bool) -> FailedPrecondition | None:
    """The failure of a run that another worker would meet again, after as many GPU hours; None for what may pass, such as a lost device.

    The error's message may quote a row, so only its kind and place are reported. A process that is not `alone` may have lost another one.
    """
    cause = describe_error(error)
    if isinstance(error, MemoryError) or any(sign in f"{type(error).__name__} {error}" for sign in OUT_OF_MEMORY):
        return FailedPrecondition(
            Reason.DOES_NOT_FIT,
            f'There was not enough memory: {cause}. Lower batch.tokens, set batch.gradient_checkpointing = "on", or use a smaller adapter.',
        )
    if not isinstance(error, DEFECTS) and not (alone and type(error) is RuntimeError):
        return None
    return FailedPrecondition(
        Reason.CHILD_FAILED,
        f"Training this base with this recipe failed: {cause}. Report this defect, or use another recipe or base.",
    )


def run_worker(
    settings: WorkerSettings,
    spec: WorkerSpec,
    in_training: threading.Event,
    stop_requested: threading.Event,
    lines: LogLines,
) -> int:
    """Train the stage against the real store and service. Returns the worker's exit code."""
    recipe = Recipe.model_validate_json(spec.recipe_json)
    hide_unused_packages(recipe)
    processes = join(recipe.method, settings.parallelism)
    if processes is None:
        return 0
    reporter = Reporter(connect(settings), spec.run_id, spec.epoch, lines) if processes.first else NullReporter()
    make_way(settings.compute_lock)
    signer = Identity.load("training-worker", settings.identity_key_file)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix=f"{spec.run_id}-{spec.epoch}-") as folder:
        store = S3Store.from_settings(settings)
        start = (
            partial(engine.start_engine, compute_lock=settings.compute_lock)
            if settings.rollout_engine == "auto"
            else engine.without_engine
        )
        worker = Worker(
            spec,
            recipe,
            store,
            reporter,
            Path(folder),
            signer=signer,
            processes=processes,
            reload=partial(reload_check.reload_in_fresh_process, compute_lock=settings.compute_lock),
            start_engine=start,
        )
        return worker.run(in_training, stop_requested)


class Worker:
    """One worker of one stage of a run. `folder` must be empty, and is filled. `reload` proves the saved weights (`probes`), and
    `start_engine` starts the engine that writes rollouts.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        recipe: Recipe,
        store: ObjectStore,
        reporter: Reporter,
        folder: Path,
        *,
        signer: Identity,
        processes: Processes,
        reload: reload_check.Reload = reload_check.reload_in_fresh_process,
        start_engine: engine.StartEngine = engine.without_engine,
    ) -> None:
        self._spec = spec
        self._recipe = processes.fit_recipe(recipe)
        self._store = store
        self._reporter = reporter
        self._folder = folder
        self._checkpoints = Checkpoints(store, signer, spec.run_id, spec.epoch, spec.stage)
        self._notes = StageNotes(store, signer, spec.run_id, spec.epoch, spec.stage)
        self._meter = Meter()
        self._processes = processes
        self._reload = reload
        self._start_engine = start_engine

    def run(self, in_training: threading.Event, stop_requested: threading.Event) -> int:
        """Do all the work and return the exit code. Blocks.

        0: finished, cancelled, superseded, or failed and reported. 1: a retryable error. RETRIABLE_EXIT: stopped by a signal; resume later.
        The worker sets `in_training` while a signal must wait for the end of a step. `stop_requested` is set when a signal has arrived.
        """
        self._reporter.start()
        try:
            return self._run(in_training, stop_requested)
        except Aborted:
            log.info("superseded", run_id=self._spec.run_id, epoch=self._spec.epoch)
            return 0
        except TailorError as error:
            if not self._processes.first:
                log.warning("worker ends; the first process reports why", reason=error.reason)
                return 1 if error.retryable else 0
            if error.retryable:
                log.warning("worker gives up for now", reason=error.reason)
                return 1
            self._report_failure(error)
            return 0
        except (RuntimeError, MemoryError, *DEFECTS) as error:
            failure = explain_failure(error, alone=self._processes.world == 1)
            if failure is None or not self._processes.first:
                raise
            self._report_failure(failure)
            return 0

    def _run(self, in_training: threading.Event, stop_requested: threading.Event) -> int:
        self._report("loading", models_pb2.RunProgressed())
        inputs = self._processes.run_once_per_node(self._download)
        stopper = Stopper(lambda: self._reporter.must_stop, lambda: stop_requested.is_set() or self._reporter.lost)
        context = self._make_context(inputs, stopper)
        trained = train(
            context,
            _find_method(self._recipe),
            self._checkpoints,
            lambda step: self._report("training", step),
            in_training,
        )
        self._processes.leave()
        if stopper.cancelled() or not self._processes.first:
            return 0
        if trained is None:
            return RETRIABLE_EXIT
        saved = self._save(context, trained)
        # The reload check loads another copy of the base.
        del trained
        free_memory()
        self._check_and_report(context, saved)
        return 0

    def _download(self) -> Inputs:
        return retry_dependency(
            "object store", lambda: download_inputs(self._store, self._spec, self._make_folder("inputs"))
        )

    def _make_folder(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder, prefix=f"{name}-"))

    def _make_context(self, inputs: Inputs, stopper: Stopper) -> StageContext:
        from services.training.bases.files import load_tokenizer

        return StageContext(
            spec=self._spec,
            recipe=self._recipe,
            inputs=inputs,
            tokenizer=load_tokenizer(inputs.base),
            folder=self._make_folder("output"),
            meter=self._meter,
            stopper=stopper,
            processes=self._processes,
            notes=self._notes,
            report=self._report,
            start_engine=self._start_engine,
        )

    def _save(self, context: StageContext, trained: TrainedModel) -> SavedModel:
        """Save the result, and measure what the reload check compares."""
        spec, recipe, kind = self._spec, context.recipe, trained.prepared.kind
        last = models_pb2.RunProgressed(
            step=trained.steps, total_steps=trained.prepared.steps, loss=self._meter.last_loss
        )
        self._report("saving", last, trained.metrics.get("held_out_loss"))
        weights = self._folder / "weights"
        results.save_weights(trained.model, context.tokenizer, spec, recipe, weights)
        figures = self._figures(trained)
        unserved = results.not_served_because(kind, recipe, read_capabilities(context.inputs.base))
        results.write_card(spec, recipe, figures, weights, kind=kind, licence=context.inputs.licence, unserved=unserved)
        self._report("verifying", last)
        rows = reload_check.choose_rows(context.inputs.base, context.tokenizer, trained.prepared.learned)
        expected = reload_check.measure_trained(kind, context.inputs.base, trained.model, rows)
        return SavedModel(weights, kind, unserved, figures, rows, expected)

    def _check_and_report(self, context: StageContext, saved: SavedModel) -> None:
        """Prove, store and report the result."""
        spec, recipe, kind, weights = self._spec, context.recipe, saved.kind, saved.weights
        check = reload_check.verify(
            context.inputs.base, weights, recipe, saved.rows, kind=kind, expected=saved.expected, reload=self._reload
        )
        log.info("verified", difference=check.difference, serving_difference=check.serving_difference)
        entries = reload_check.to_entries(kind, saved.rows, check, reload_check.to_serving(recipe, kind).precision)
        stored = retry_dependency(
            "object store",
            lambda: results.store_result(
                self._store,
                spec,
                recipe,
                weights,
                kind=kind,
                unserved=saved.unserved,
                figures=saved.figures,
                probes=entries,
            ),
        )
        if not self._report_trained(saved.figures, kind, stored):
            retry_dependency("object store", self._checkpoints.delete_all)

    def _figures(self, trained: TrainedModel) -> models_pb2.AdapterTrained:
        return models_pb2.AdapterTrained(
            steps=trained.steps,
            rows=trained.prepared.rows,
            rows_skipped=trained.prepared.skipped,
            tokens=self._meter.earlier_tokens + self._meter.tokens,
            first_loss=self._spec.first_loss or self._meter.first_loss,
            last_loss=self._meter.last_loss,
            tokens_per_second=self._meter.rate(),
            seconds=self._seconds(),
            memory_bytes=peak_bytes() + trained.prepared.extra_bytes(),
            metrics=trained.metrics,
            stopped_because=trained.stopped_because,
        )

    def _report(self, phase: str, step: models_pb2.RunProgressed, held_out_loss: float | None = None) -> None:
        """Report a step's figures, completed with the phase, the run, and the worker's speed and memory."""
        spec = self._spec
        message = models_pb2.RunProgressed(
            run_id=spec.run_id,
            specialist=spec.specialist,
            phase=phase,
            tokens_per_second=self._meter.rate(),
            remaining_seconds=self._meter.remaining(step.step, step.total_steps),
            epoch=spec.epoch,
            create_time=now(),
            stage=spec.stage,
            memory_bytes=peak_bytes(),
            held_out_loss=held_out_loss,
        )
        message.MergeFrom(step)
        self._reporter.report_progress(message)

    def _report_trained(self, figures: models_pb2.AdapterTrained, kind: str, stored: results.StoredResult) -> bool:
        """Report the adapter that is stored and proven. True if it came too late."""
        spec = self._spec
        message = models_pb2.AdapterTrained(
            digest=stored.manifest.sha256,
            kind=KINDS[kind],
            base_digest=spec.base_digest,
            manifest=from_ref(stored.manifest),
            size_bytes=stored.size_bytes,
            parent_digest=spec.parent.sha256 if spec.parent else "",
            stage=spec.stage,
        )
        message.MergeFrom(figures)
        message.seconds = self._seconds()
        return retry_dependency(
            "training service", lambda: self._reporter.report_trained(message), seconds=REPORT_SECONDS
        )

    def _report_failure(self, error: TailorError) -> None:
        log.error("run failed", reason=error.reason)
        message = models_pb2.RunFailed(
            run_id=self._spec.run_id,
            specialist=self._spec.specialist,
            reason=error.reason,
            message=error.message,
            create_time=now(),
        )
        retry_dependency("training service", lambda: self._reporter.report_failed(message), seconds=REPORT_SECONDS)

    def _seconds(self) -> float:
        """Wall time since the run's first worker started."""
        start = self._spec.start_time
        return (datetime.now(UTC) - datetime.fromisoformat(start)).total_seconds() if start else 0.0


def _find_method(recipe: Recipe) -> Method:
    if recipe.method not in METHODS:
        raise InvalidArgument(Reason.UNKNOWN_METHOD, f"This worker does not support the method {recipe.method}.")
    return METHODS[recipe.method]


def train(
    context: StageContext,
    method: Method,
    checkpoints: Checkpoints,
    report: Callable[[models_pb2.RunProgressed], None],
    training: threading.Event,
) -> TrainedModel | None:
    """Train to the end, or to that of the budget. Blocks.

    Returns None if the worker was asked to stop before that; `training` is set while it can be asked.
    """
    prepared = method(context)
    try:
        return _train(context, prepared, checkpoints, report, training)
    finally:
        prepared.release()


def _train(
    context: StageContext,
    prepared: Prepared,
    checkpoints: Checkpoints,
    report: Callable[[models_pb2.RunProgressed], None],
    training: threading.Event,
) -> TrainedModel | None:
    from services.training.worker.callbacks import BestCallback, BudgetCallback, StepCallback

    trainer = prepared.trainer
    remove_printers(trainer)
    keep_in_f32(trainer.model)
    checkpoint = _load_checkpoint(context, checkpoints)
    budget = BudgetCallback(trainer.model, prepared.watch, checkpoint) if prepared.watch else None
    if budget:
        # Before the other callback, which stores the checkpoint that this one adds a file to.
        trainer.add_callback(budget)
    best = BestCallback(prepared, checkpoint) if prepared.compare_every else None
    if best:
        trainer.add_callback(best)
    trainer.add_callback(StepCallback(context, checkpoints, report=report, shown=prepared.shown))
    log.info("training", rows=prepared.rows, rows_skipped=prepared.skipped, steps=prepared.steps)
    training.set()
    if checkpoint and (checkpoint.name == f"checkpoint-{prepared.steps}" or (best and best.stopped_because)):
        _load_last_step(trainer, checkpoint, context.meter)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # Measuring and the check need its memory.
    prepared.release()
    unfinished = trainer.state.global_step < prepared.steps
    stopped_because = (budget.exceeded if budget else "") or (best.stopped_because if best and unfinished else "")
    if unfinished and not stopped_because:
        return None
    training.clear()
    if best:
        best.restore()
    sharded = context.processes.sharded
    metrics = prepared.measure() if sharded or context.processes.first else {}
    if budget and budget.exceeded:
        metrics = {**metrics, "kept_step": float(budget.kept_step)}
    if best:
        metrics = {**metrics, "kept_step": float(best.best_step)}
    log.info("measured", **metrics)
    # The saved model will be used without autocast.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    gathered = gather_model(model, prepared.rebuild) if sharded else model
    return TrainedModel(gathered, prepared, metrics, trainer.state.global_step, stopped_because)


def _load_last_step(trainer: Any, checkpoint: Path, meter: Meter) -> None:
    """Continue after the last step, where an earlier worker was lost. The trainer itself would do one more step."""
    from transformers import TrainerState

    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    meter.last_loss = next(
        (float(entry["loss"]) for entry in reversed(trainer.state.log_history) if "loss" in entry), 0.0
    )


def _load_checkpoint(context: StageContext, checkpoints: Checkpoints) -> Path | None:
    """The folder of the newest checkpoint, downloaded; None if there is none."""
    resumed = retry_dependency("object store", lambda: checkpoints.load_newest(context.folder))
    context.processes.check_same("checkpoint", resumed)
    context.meter.earlier_tokens = resumed.tokens
    log.info("checkpoint", from_step=resumed.step)
    return context.folder / f"checkpoint-{resumed.step}" if resumed.step else None
