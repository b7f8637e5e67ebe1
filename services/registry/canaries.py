"""Trying an adapter on a share of the callers: begun and taken back by hand, or decided by what is measured of both arms."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from services.registry.comparing import CanaryRules, Outcome, Verdict, verdict, violations
from services.registry.domain import Evaluator
from services.registry.handlers import Begin, held_specialist
from services.registry.promotions import admitted, begin_canary, save_serving
from services.registry.serving import Serving, next_serving, with_canary, without_canary
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, TailorError
from tailor.logging import get_logger

log = get_logger(__name__)

LOOK_SECONDS = 2.0

# The rules of a canary, out of those of its specialist.
Terms = Callable[[CanaryRules], CanaryRules]


def start_canary(begin: Begin, name: str, adapter_digest: str, expected_generation: int, terms: Terms) -> Serving:
    """Let a share of the callers get an adapter that meets the gate beside what serves."""
    with begin() as tx:
        specialist = held_specialist(tx, name)
        rules = terms(specialist.canary or CanaryRules())
        wrong = violations(rules)
        if wrong:
            raise InvalidArgument(Reason.INVALID_CANARY, "The canary's rules are wrong.", field_violations=wrong)
        adapter, evaluation = admitted(tx, specialist, adapter_digest)
        current = tx.serving(name)
        serving = with_canary(current, adapter, specialist, rules.percent, expected_generation)
        if evaluation.incumbent_digest != current.adapter_digest:
            raise FailedPrecondition(
                Reason.INCUMBENT_MOVED,
                "The adapter was measured beside another than serves now; `tailor evaluate` measures it.",
            )
        begin_canary(tx, serving, adapter, rules)
        return serving


def stop_canary(begin: Begin, name: str, expected_generation: int) -> Serving:
    """Take the canary back: what serves goes on serving all callers."""
    with begin() as tx:
        specialist = held_specialist(tx, name)
        serving = without_canary(tx.serving(name), specialist, expected_generation)
        save_serving(tx, serving, "stopped by hand", Outcome.BACK)
        return serving


def refused(begin: Begin, name: str, generation: int, why: str) -> None:
    """A replica refuses a generation: where a canary runs since then, that goes back."""
    with begin() as tx:
        specialist = tx.lock_specialist(name)
        current = tx.serving(name)
        if specialist is not None and current.canary is not None and current.generation == generation:
            save_serving(tx, without_canary(current, specialist, generation), why, Outcome.BACK)


def decide(begin: Begin, name: str, now: datetime) -> Verdict | None:
    """Look at both arms of a specialist's canary, and let it go forward or back where that is decided."""
    with begin() as tx:
        specialist = tx.lock_specialist(name)
        canary = tx.running_canary(name)
        if specialist is None or canary is None:
            return None
        tried, beside = tx.arms(canary)
        found = verdict(canary.rules, tried, beside, (now - canary.start_time).total_seconds())
        if found is None:
            return None
        current = tx.serving(name)
        serving = without_canary(current, specialist, current.generation)
        if found.outcome is Outcome.FORWARD:
            serving = next_serving(current, tx.adapter(canary.adapter_digest), specialist, current.generation)
        save_serving(tx, serving, found.reason, found.outcome)
        return found


class Watch:
    """Decides canaries as their calls come in. All it knows is in the catalogue: any registry goes on where another stopped, and of two
    that look at once one decides, for they take the specialist's lock in turn."""

    def __init__(self, begin: Begin, evaluator: Evaluator) -> None:
        self._begin = begin
        self._evaluator = evaluator

    def run(self, stop: threading.Event) -> None:
        """Look until told to stop; a lost database or evaluation only delays it."""
        while not stop.wait(LOOK_SECONDS):
            try:
                self.look(datetime.now(UTC))
            except TailorError as error:
                if not error.retryable:
                    raise
                log.warning("canaries wait", reason=error.reason)

    def look(self, now: datetime) -> None:
        """Decide what can be decided, then have measured again what waited for it."""
        with self._begin() as tx:
            running = tx.running_canaries()
        for name in running:
            found = decide(self._begin, name, now)
            if found is not None:
                log.info("canary decided", specialist=name, outcome=found.outcome.value)
        with self._begin() as tx:
            waiting = tx.waiting()
        for digest, request_id in waiting.items():
            self._measure(digest, request_id)

    def _measure(self, digest: str, request_id: str) -> None:
        """Have an adapter measured again; one that cannot be measured any more waits in vain."""
        try:
            self._evaluator.evaluate(digest, request_id)
        except TailorError as error:
            if error.retryable:
                raise
            log.warning("not measured again", adapter=digest, reason=error.reason)
        with self._begin() as tx:
            tx.waits_no_more(digest)
