"""A worker's work: inputs, model, training, result, proof, report."""

import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.training.adapters import inputs, probes, results, rows
from services.training.adapters.callbacks import Meter, StepReport, Stopper, make_callback
from services.training.adapters.checkpoints import Checkpoints
from services.training.adapters.patience import patiently
from services.training.adapters.turns import Turns
from services.training.adapters.voice import RemoteService, Voice
from services.training.domain import RETRIABLE_EXIT
from services.training.recipe import Recipe
from services.training.settings import WorkerSettings
from services.training.spec import WorkerSpec
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2_grpc
from tailor.errors import Aborted, TailorError
from tailor.hardware import computes_in_bf16
from tailor.logging import get_logger
from tailor.rpc.channel import service_channel
from tailor.storage.protocol import ObjectStore
from tailor.storage.s3 import S3Store

log = get_logger(__name__)

REPORT_SECONDS = 600.0


def work(settings: WorkerSettings, spec: WorkerSpec, training: threading.Event, wanted: threading.Event) -> int:
    """Do the run against the real store and service; the worker's exit code."""
    channel = service_channel(settings, "training", settings.training_address, service="training-worker")
    voice = Voice(RemoteService(training_pb2_grpc.TrainingServiceStub(channel)), spec.run_id, spec.epoch)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix=f"{spec.run_id}-{spec.epoch}-") as folder:
        worker = Worker(spec, S3Store.from_settings(settings), voice, Turns(settings.compute_lock), Path(folder))
        return worker.run(training, wanted)


class Worker:
    """One worker of one run. `folder` is empty, and its to fill."""

    def __init__(self, spec: WorkerSpec, store: ObjectStore, voice: Voice, turns: Turns, folder: Path) -> None:
        self._spec = spec
        self._recipe = _computable(Recipe.model_validate_json(spec.recipe_json))
        self._store = store
        self._voice = voice
        self._turns = turns
        self._folder = folder
        self._checkpoints = Checkpoints(store, spec.run_id, spec.epoch)
        self._meter = Meter()
        self._total = 0
        self._rate = 0.0

    def run(self, training: threading.Event, wanted: threading.Event) -> int:
        """Do it all; the exit code. `training` is set while a signal must wait for the step's end, `wanted` once one came."""
        self._voice.start()
        try:
            return self._run(training, wanted)
        except Aborted:
            log.info("superseded", run_id=self._spec.run_id, epoch=self._spec.epoch)
            return 0
        except TailorError as error:
            if error.retryable:
                log.warning("worker gives up for now", reason=error.reason)
                return 1
            self._fail(error)
            return 0

    def _run(self, training: threading.Event, wanted: threading.Event) -> int:
        self._report("loading", StepReport(0, 0, 0.0, 0.0, 0.0))
        found = patiently("object store", lambda: inputs.bring(self._store, self._spec, self._fresh("inputs")))
        stopper = Stopper(lambda: self._voice.must_stop, lambda: wanted.is_set() or self._voice.lost)
        model, tokenizer, encoded = self._train(found, stopper, training)
        if stopper.cancelled():
            return 0
        if model is None:
            return RETRIABLE_EXIT
        self._conclude(model, tokenizer, encoded, found)
        return 0

    def _fresh(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder, prefix=f"{name}-"))

    def _train(
        self, found: inputs.Inputs, stopper: Stopper, training: threading.Event
    ) -> tuple[Any, Any, list[rows.Encoded]]:
        """Train to the end, or to where it must stop: then there is no model."""
        from services.training.adapters import model as models
        from services.training.adapters import sft

        tokenizer = models.load_tokenizer(found.base)
        limit = self._recipe.batch.max_length
        encoded = rows.trainable(
            [rows.encode(row_id, messages, tokenizer, limit) for row_id, messages in rows.read_messages(found.train)]
        )
        bins = rows.pack(encoded, self._recipe.batch.tokens, self._recipe.seed)
        self._total = sft.plan(bins, self._recipe).steps
        model = models.trainable_model(found.base, self._recipe)
        output = self._fresh("output")
        trainer = sft.build_trainer(
            model,
            tokenizer,
            bins,
            self._recipe,
            steps=self._total,
            folder=output,
            meter=self._meter,
            callbacks=[make_callback(self._meter, self._turns, self._checkpoints, stopper, self._step)],
        )
        step = patiently("object store", lambda: self._checkpoints.newest(output))
        log.info(
            "training", run_id=self._spec.run_id, rows=len(encoded), bins=len(bins), steps=self._total, from_step=step
        )
        training.set()
        trainer.train(resume_from_checkpoint=str(output / f"checkpoint-{step}") if step else None)
        whole = trainer.state.global_step >= self._total
        if whole:
            training.clear()
        # Without autocast, which the trainer put around it: what is saved will be asked without.
        return (_bare(trainer) if whole else None), tokenizer, encoded

    def _conclude(self, model: Any, tokenizer: Any, encoded: list[rows.Encoded], found: inputs.Inputs) -> None:
        """Save, prove, store and report."""
        self._phase("saving")
        weights = self._folder / "weights"
        results.save_weights(model, tokenizer, self._spec, self._recipe, weights)
        figures = self._figures(encoded)
        results.write_card(self._spec, self._recipe, figures, found.licence, weights)
        self._phase("verifying")
        chosen = probes.choose(encoded)
        self._turns.take()
        expected = probes.log_probabilities(model, chosen)
        difference = probes.verify(found.base, weights, self._recipe, chosen, expected)
        self._turns.give()
        log.info("verified", run_id=self._spec.run_id, difference=difference)
        proof = {row.row_id: round(value, 6) for row, value in zip(chosen, expected, strict=True)}
        manifest = patiently(
            "object store", lambda: results.store(self._store, self._spec, self._recipe, proof, weights)
        )
        trained = models_pb2.AdapterTrained(
            digest=manifest.sha256,
            base_digest=self._spec.base_digest,
            manifest=common_pb2.ObjectRef(uri=manifest.uri, sha256=manifest.sha256, size_bytes=manifest.size_bytes),
            steps=figures.steps,
            first_loss=figures.first_loss,
            last_loss=figures.last_loss,
            tokens_per_second=figures.tokens_per_second,
            seconds=self._seconds(),
        )
        if not patiently("training service", lambda: self._voice.trained(trained), seconds=REPORT_SECONDS):
            patiently("object store", self._checkpoints.drop_all)

    def _figures(self, encoded: list[rows.Encoded]) -> results.Figures:
        return results.Figures(
            steps=self._total,
            rows=len(encoded),
            tokens=self._meter.tokens,
            first_loss=self._spec.first_loss or self._meter.first_loss,
            last_loss=self._meter.last_loss,
            tokens_per_second=self._rate,
            seconds=self._seconds(),
        )

    def _seconds(self) -> float:
        started = datetime.fromisoformat(self._spec.start_time) if self._spec.start_time else datetime.now(UTC)
        return (datetime.now(UTC) - started).total_seconds()

    def _step(self, report: StepReport) -> None:
        self._rate = self._meter.rate()
        self._report("training", report)

    def _phase(self, phase: str) -> None:
        self._report(phase, StepReport(self._total, self._total, self._meter.last_loss, 0.0, 0.0))

    def _report(self, phase: str, report: StepReport) -> None:
        message = models_pb2.RunProgressed(
            run_id=self._spec.run_id,
            specialist=self._spec.specialist,
            phase=phase,
            step=report.step,
            total_steps=report.total,
            loss=report.loss,
            learning_rate=report.learning_rate,
            gradient_norm=report.gradient_norm,
            tokens_per_second=self._rate,
            remaining_seconds=self._meter.remaining(report.step, report.total),
            epoch=self._spec.epoch,
        )
        message.create_time.FromDatetime(datetime.now(UTC))
        self._voice.progress(message)

    def _fail(self, error: TailorError) -> None:
        log.error("run failed", run_id=self._spec.run_id, reason=error.reason)
        failed = models_pb2.RunFailed(
            run_id=self._spec.run_id, specialist=self._spec.specialist, reason=error.reason, message=error.message
        )
        failed.create_time.FromDatetime(datetime.now(UTC))
        patiently("training service", lambda: self._voice.failed(failed), seconds=REPORT_SECONDS)


def _computable(recipe: Recipe) -> Recipe:
    """The recipe in f32 where this machine would only emulate bf16; the adapter's card and manifest say so."""
    if recipe.precision == "f32" or computes_in_bf16():
        return recipe
    log.info("bf16 is emulated here, computing in f32 instead", precision=recipe.precision)
    return recipe.model_copy(update={"precision": "f32"})


def _bare(trainer: Any) -> Any:
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
