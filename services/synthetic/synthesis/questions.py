"""Asks a model within the budgets: reserve the worst case, ask, store the answer, settle. Nothing that was answered is asked again."""

import threading
from dataclasses import dataclass, field

from services.synthetic.adapters.syntheses import SqlSyntheses
from services.synthetic.ports import ChatModel, LostAnswer
from services.synthetic.synthesis_domain import (
    Completion,
    Messages,
    ModelRole,
    StoredAnswer,
    TokenReservation,
    worst_case,
)
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, TailorError
from tailor.jobs import HeldJob
from tailor.retry import retry


@dataclass(frozen=True)
class TeacherQuestion:
    """One step of one request."""

    number: int
    step: str
    role: ModelRole
    messages: Messages
    max_tokens: int
    temperature: float
    schema: dict[str, object]
    document_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class AskLimits:
    """Attempts per request, and the seconds between them, which grow."""

    attempts: int = 6
    initial_seconds: float = 1.0
    max_seconds: float = 30.0


@dataclass
class Asker:
    """Asks for the synthesis of a job. Thread-safe.

    While other requests run, their reservations may still shrink, so a request that does not fit the budget waits for them.
    """

    syntheses: SqlSyntheses
    job: HeldJob
    models: dict[ModelRole, ChatModel]
    limits: AskLimits
    _running: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def ask(self, question: TeacherQuestion) -> StoredAnswer:
        """The stored answer, or a new one, stored. Blocks.

        Raises FailedPrecondition (BUDGET_SPENT) if the worst case does not fit the budget, and the model's error after the last attempt.
        """
        known = self.syntheses.answer(self.job.key, question.number, question.step)
        if known is not None:
            return known
        return retry(
            lambda: self._attempt(question),
            stop=self.job.stop,
            attempts=self.limits.attempts,
            initial_seconds=self.limits.initial_seconds,
            max_seconds=self.limits.max_seconds,
        )

    def _attempt(self, question: TeacherQuestion) -> StoredAnswer:
        reservation = TokenReservation(question.role, worst_case(question.messages, question.max_tokens))
        self._reserve(reservation)
        try:
            return self._ask_reserved(question, reservation)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _reserve(self, reservation: TokenReservation) -> None:
        with self._changed:
            while not self.syntheses.reserve(self.job, reservation):
                if not self._running:
                    raise FailedPrecondition(
                        Reason.BUDGET_SPENT, "The rest of the budget is less than the next request can cost."
                    )
                self._changed.wait()
            self._running += 1

    def _ask_reserved(self, question: TeacherQuestion, reservation: TokenReservation) -> StoredAnswer:
        model = self.models[question.role]
        try:
            completion = model.complete(
                question.messages,
                max_tokens=question.max_tokens,
                temperature=question.temperature,
                schema=question.schema,
            )
        except InvalidArgument:
            refused = _to_answer(question, model.model, None)
            self.syntheses.release(self.job, reservation, is_lost=False, refused=refused)
            return refused
        except TailorError as error:
            self.syntheses.release(self.job, reservation, is_lost=isinstance(error, LostAnswer))
            raise
        answer = _to_answer(question, model.model, completion)
        self.syntheses.settle(self.job, reservation, completion, answer)
        return answer


def _to_answer(question: TeacherQuestion, model: str, completion: Completion | None) -> StoredAnswer:
    """The record of an answer; without a completion, of a refused prompt."""
    text, finish_reason = (completion.text, completion.finish_reason) if completion else ("", "refused")
    return StoredAnswer(
        question.number, question.step, model, text, finish_reason, completion is None, question.document_ids
    )
