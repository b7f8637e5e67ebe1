"""A worker's work: inputs, model, training, result, proof, report. What is trained, and how, is the method's."""

import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from services.training.adapters import inputs
from services.training.domain import RETRIABLE_EXIT
from services.training.methods import dpo, reward, rollouts, sft, sweep
from services.training.methods.base import Context, Method
from services.training.methods.patience import patiently
from services.training.methods.processes import Processes, Silence, join
from services.training.methods.turns import Turns
from services.training.recipe import Recipe
from services.training.settings import WorkerSettings
from services.training.spec import WorkerSpec
from services.training.worker.__main__ import messages as reports
from services.training.worker.__main__ import probes, results
from services.training.worker.callbacks import Meter, StepReport, Stopper
from services.training.worker.checkpoints import Checkpoints, Signer
from services.training.worker.log_lines import LogLines
from services.training.worker.loop import Made, train
from services.training.worker.memory import peak_bytes
from services.training.worker.notes import Notes
from services.training.worker.reporter import RemoteService, Voice
from tailor.api.training.v1 import training_pb2_grpc
from tailor.errors import Aborted, InvalidArgument, Reason, TailorError
from tailor.hardware import computes_in_bf16
from tailor.logging import get_logger
from tailor.rpc.channel import service_channel
from tailor.rpc.identity import Identity
from tailor.storage.protocol import ObjectStore
from tailor.storage.s3 import S3Store

log = get_logger(__name__)

REPORT_SECONDS = 600.0

METHODS: Mapping[str, Method] = {
    "sft": sft.prepare,
    "dpo": dpo.prepare,
    "reward": reward.prepare,
    "rloo": rollouts.prepare,
    "grpo": rollouts.prepare,
    "sweep": sweep.prepare,
}


def work(
    settings: WorkerSettings, spec: WorkerSpec, training: threading.Event, wanted: threading.Event, lines: LogLines
) -> int:
    """Do the run against the real store and service; the worker's exit code."""
    processes = join(Recipe.model_validate_json(spec.recipe_json).method, settings.parallelism)
    if processes is None:
        return 0
    voice = Voice(_service(settings) if processes.first else Silence(), spec.run_id, spec.epoch, lines)
    turns = Turns(settings.compute_lock if processes.first else None)
    signer = Identity.load("training-worker", settings.identity_key_file)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix=f"{spec.run_id}-{spec.epoch}-") as folder:
        store = S3Store.from_settings(settings)
        worker = Worker(spec, store, voice, turns, Path(folder), signer=signer, processes=processes)
        return worker.run(training, wanted)


def _service(settings: WorkerSettings) -> RemoteService:
    channel = service_channel(settings, "training", settings.training_address, service="training-worker")
    return RemoteService(training_pb2_grpc.TrainingServiceStub(channel))


class Worker:
    """One worker of one stage of a run. `folder` is empty, and its to fill."""

    def __init__(
        self,
        spec: WorkerSpec,
        store: ObjectStore,
        voice: Voice,
        turns: Turns,
        folder: Path,
        *,
        signer: Signer,
        processes: Processes,
    ) -> None:
        self._spec = spec
        self._recipe = _computable(processes.fitted(Recipe.model_validate_json(spec.recipe_json)))
        self._store = store
        self._voice = voice
        self._turns = turns
        self._folder = folder
        self._checkpoints = Checkpoints(store, signer, spec.run_id, spec.epoch, spec.stage)
        self._notes = Notes(store, signer, spec.run_id, spec.epoch, spec.stage)
        self._meter = Meter()
        self._processes = processes

    def run(self, training: threading.Event, wanted: threading.Event) -> int:
        """Do it all; the exit code. `training` is set while a signal must wait for the step's end, `wanted` once one came."""
        self._voice.start()
        try:
            return self._run(training, wanted)
        except Aborted:
            log.info("superseded", run_id=self._spec.run_id, epoch=self._spec.epoch)
            return 0
        except TailorError as error:
            if not self._processes.first:
                log.warning("the first process says why it ends", reason=error.reason)
                return 1 if error.retryable else 0
            if error.retryable:
                log.warning("worker gives up for now", reason=error.reason)
                return 1
            self._fail(error)
            return 0

    def _run(self, training: threading.Event, wanted: threading.Event) -> int:
        self._report("loading", StepReport(0, 0, 0.0))
        found = self._processes.once_a_node(self._bring)
        stopper = Stopper(lambda: self._voice.must_stop, lambda: wanted.is_set() or self._voice.lost)
        context = self._context(found, stopper)
        made = train(
            context, _method(self._recipe), self._checkpoints, lambda step: self._report("training", step), training
        )
        self._processes.leave()
        if stopper.cancelled() or not self._processes.first:
            return 0
        if made is None:
            return RETRIABLE_EXIT
        self._conclude(context, made)
        return 0

    def _bring(self) -> inputs.Inputs:
        return patiently("object store", lambda: inputs.bring(self._store, self._spec, self._fresh("inputs")))

    def _fresh(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder, prefix=f"{name}-"))

    def _context(self, found: inputs.Inputs, stopper: Stopper) -> Context:
        from services.training.methods.model import load_tokenizer

        tokenizer, output = load_tokenizer(found.base), self._fresh("output")
        return Context(
            spec=self._spec,
            recipe=self._recipe,
            found=found,
            tokenizer=tokenizer,
            folder=output,
            meter=self._meter,
            turns=self._turns,
            stopper=stopper,
            processes=self._processes,
            notes=self._notes,
            report=self._report,
        )

    def _conclude(self, context: Context, made: Made) -> None:
        """Save, prove, store and report."""
        spec, recipe, kind = self._spec, self._recipe, made.prepared.kind
        steps = StepReport(made.prepared.steps, made.prepared.steps, self._meter.last_loss)
        self._report("saving", steps, made.metrics.get("held_out_loss"))
        weights = self._folder / "weights"
        results.save_weights(made.model, context.tokenizer, spec, recipe, weights)
        figures = self._figures(made)
        results.write_card(spec, recipe, figures, weights, kind=kind, licence=context.found.licence)
        self._report("verifying", steps)
        kept = probes.rows(context.tokenizer)
        asked = [*kept, *probes.shortest(made.prepared.learned)]
        self._turns.take()
        expected = probes.measure(kind, made.model, asked)
        proof = probes.verify(context.found.base, weights, recipe, asked, kind=kind, expected=expected)
        self._turns.give()
        log.info("verified", difference=proof.difference)
        proven = probes.entries(kind, kept, proof)
        manifest = patiently(
            "object store",
            lambda: results.store(
                self._store, spec, recipe, weights, kind=kind, metrics=figures.metrics, probes=proven
            ),
        )
        figures = replace(figures, seconds=reports.seconds_since_start(spec))
        trained = reports.trained(spec, kind, figures, manifest)
        if not patiently("training service", lambda: self._voice.trained(trained), seconds=REPORT_SECONDS):
            patiently("object store", self._checkpoints.drop_all)

    def _figures(self, made: Made) -> results.Figures:
        return results.Figures(
            steps=made.prepared.steps,
            rows=made.prepared.rows,
            tokens=self._meter.earlier_tokens + self._meter.tokens,
            first_loss=self._spec.first_loss or self._meter.first_loss,
            last_loss=self._meter.last_loss,
            tokens_per_second=self._meter.rate(),
            seconds=reports.seconds_since_start(self._spec),
            memory_bytes=peak_bytes(),
            metrics=made.metrics,
        )

    def _report(self, phase: str, report: StepReport, held_out_loss: float | None = None) -> None:
        self._voice.progress(reports.progressed(self._spec, phase, report, self._meter, held_out_loss))

    def _fail(self, error: TailorError) -> None:
        log.error("run failed", reason=error.reason)
        failed = reports.failed(self._spec, error)
        patiently("training service", lambda: self._voice.failed(failed), seconds=REPORT_SECONDS)


def _method(recipe: Recipe) -> Method:
    if recipe.method not in METHODS:
        raise InvalidArgument(Reason.UNKNOWN_METHOD, f"This worker does not know the method {recipe.method}.")
    return METHODS[recipe.method]


def _computable(recipe: Recipe) -> Recipe:
    """The recipe in f32 where this machine would only emulate bf16; the adapter's card and manifest say so."""
    if recipe.precision == "f32" or computes_in_bf16():
        return recipe
    log.info("bf16 is emulated here, computing in f32 instead", precision=recipe.precision)
    return recipe.model_copy(update={"precision": "f32"})
