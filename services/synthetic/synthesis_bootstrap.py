"""Chooses the real adapters of syntheses, and runs them."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Engine

from services.synthetic.adapters.barrier import RowAnonymizer
from services.synthetic.adapters.commented_drafts import SqlCommentedDrafts
from services.synthetic.adapters.seed_documents import SqlSeedDocuments
from services.synthetic.adapters.syntheses import SqlSyntheses
from services.synthetic.adapters.synthesis_rows import Sides
from services.synthetic.adapters.teacher import OpenAiModel
from services.synthetic.adapters.tokenizers import StoredTokenizers
from services.synthetic.adapters.translation_score import ChrfScore
from services.synthetic.domain import Specialist
from services.synthetic.rows.grounding import unsupported
from services.synthetic.rows.passages import short_passages
from services.synthetic.settings import Settings
from services.synthetic.synthesis.handlers import WAKING_REASONS, SynthesisCommands
from services.synthetic.synthesis.prompts import MAX_PASSAGE
from services.synthetic.synthesis.runner import SynthesisRunner
from services.synthetic.synthesis.seeds import SeedReader
from services.synthetic.synthesis_rpc import SynthesisServicer
from tailor.api.synthetic.v1.synthesis_pb2_grpc import add_SynthesisServiceServicer_to_server
from tailor.errors import NotFound, Reason, TailorError
from tailor.logging import get_logger
from tailor.runtime import Runtime
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

# Syntheses that one replica runs at a time.
RUNNERS = 2
IDLE_SECONDS = 1.0
# Comments wait for minutes.
CRITIQUE_SECONDS = 10.0


@dataclass(frozen=True)
class SynthesisParts:
    """The servicer with its adder, and what runs syntheses; `runner` is None without a teacher."""

    servicer: tuple[Callable[[Any, Any], None], SynthesisServicer]
    commands: SynthesisCommands
    runner: SynthesisRunner | None
    specialists: Mapping[str, Specialist]

    def start(self, runtime: Runtime) -> None:
        """Run what waits, in threads. A new process may have a new key, so what waits for one resumes at once."""
        if self.runner is None:
            return
        runner, commands = self.runner, self.commands
        runtime.wait_for("syntheses to wake", lambda: self.commands.syntheses.wake(WAKING_REASONS))
        for number in range(RUNNERS):
            runtime.spawn(f"syntheses-{number}", lambda stop: run_syntheses(runner, stop))
        runtime.spawn("critiques", lambda stop: start_critiques(commands, self.specialists, stop))


def build_syntheses(
    runtime: Runtime,
    settings: Settings,
    engine: Engine,
    store: ObjectStore,
    *,
    specialists: Mapping[str, Specialist],
    sides: Sides,
) -> SynthesisParts:
    """Connect everything; nothing runs yet."""
    syntheses, documents = SqlSyntheses(engine), SqlSeedDocuments(engine, store, sides)
    teacher, judge = OpenAiModel.teacher(settings), OpenAiModel.judge(settings)
    barrier = RowAnonymizer(runtime.channel(settings, "anonymization", settings.anonymization_address))
    comments = SqlCommentedDrafts(engine, store)
    commands = SynthesisCommands(syntheses, documents, barrier, teacher, judge, settings.prices, comments)

    def find_specialist(name: str) -> Specialist:
        if name not in specialists:
            raise NotFound(Reason.UNKNOWN_SPECIALIST, "This specialist does not exist, or your key may not use it.")
        return specialists[name]

    runner = None
    if teacher is not None:
        runner = SynthesisRunner(
            syntheses,
            teacher,
            judge,
            SeedReader(documents, store, partial(short_passages, max_characters=MAX_PASSAGE)),
            documents,
            comments,
            specialists.get,
            StoredTokenizers(store),
            unsupported,
            ChrfScore(),
            settings.run_limits,
        )
    servicer = SynthesisServicer(commands, find_specialist)
    return SynthesisParts((add_SynthesisServiceServicer_to_server, servicer), commands, runner, specialists)


def run_syntheses(runner: SynthesisRunner, stop: threading.Event) -> None:
    """Run one synthesis after another until `stop` is set. Waits while the database does not answer."""
    while not stop.is_set():
        try:
            has_run = runner.run_next(stop)
        except TailorError as error:
            if not error.retryable:
                raise
            log.warning("syntheses wait", reason=error.reason)
            has_run = False
        if not has_run:
            stop.wait(IDLE_SECONDS)


def start_critiques(
    commands: SynthesisCommands,
    specialists: Mapping[str, Specialist],
    stop: threading.Event,
    *,
    seconds: float = CRITIQUE_SECONDS,
) -> None:
    """Look every few seconds for critiques that are due, and start them, until `stop` is set. Waits while the database does not answer."""
    while not stop.wait(seconds):
        for specialist in list(specialists.values()):
            try:
                synthesis = commands.start_critiques(specialist)
            except TailorError as error:
                log.warning("critiques not started", specialist=specialist.name, reason=error.reason)
                continue
            if synthesis is not None:
                comments = synthesis.spec.target
                log.info("critiques started", synthesis_id=synthesis.synthesis_id, comments=comments)
