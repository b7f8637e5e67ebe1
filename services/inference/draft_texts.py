"""Texts of drafts, for specialists that keep them: anonymised first, in a thread of their own, bounded in memory and time."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from services.inference.adapters.anonymization import AnonymizationClient
from services.inference.definitions import Definitions
from services.inference.domain import CANCELLED, FAILED, ChatMessage, Draft, Transcript
from services.inference.ports import PublishDraft, StoreText
from tailor.errors import FailedPrecondition, Reason, TailorError
from tailor.logging import get_logger
from tailor.retry import Stopped, retry
from tailor.values import Labels

log = get_logger(__name__)

# Waiting texts are not anonymised yet, so only a few may wait, and in memory only: until a stopped anonymization is replaced, has loaded
# its models and has worked off its queue. Without its text, a draft that an expert ranks teaches nothing.
MAX_CHARACTERS = 8_000_000
MAX_AGE_SECONDS = 600.0
# Tries before the next text's turn, so that one that always fails does not hold up the others.
ATTEMPTS = 2


class DraftTextStore:
    """Stores the texts of drafts. A draft is published before its text comes here, and again once the text is stored.

    A text that anonymization refuses is dropped. While anonymization or the store does not answer, texts are tried in turn until they are
    too old.
    """

    def __init__(
        self,
        definitions: Definitions,
        anonymizer: AnonymizationClient,
        store: StoreText,
        publish: PublishDraft,
        *,
        first_pause_seconds: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._definitions = definitions
        self._anonymizer = anonymizer
        self._store = store
        self._publish = publish
        self._first_pause_seconds = first_pause_seconds
        self._now = now
        self._waiting: deque[tuple[float, Draft, Transcript]] = deque()
        self._characters = 0
        self._changed = threading.Condition()

    def keep(self, draft: Draft, transcript: Transcript) -> None:
        """Queue a text; returns at once. Ignores cancelled, failed and empty answers, and drops the text if too many wait already."""
        if draft.finish_reason in (CANCELLED, FAILED) or not transcript.answer.strip():
            return
        if self._definitions.draft_labels(draft.served.specialist) is None:
            return
        with self._changed:
            if self._characters + transcript.characters > MAX_CHARACTERS:
                log.warning("text of a draft not stored", draft_id=draft.draft_id, reason=Reason.TOO_MUCH_WAITS)
                return
            self._append(self._now(), draft, transcript)

    def _append(self, queued_at: float, draft: Draft, transcript: Transcript) -> None:
        self._characters += transcript.characters
        self._waiting.append((queued_at, draft, transcript))
        self._changed.notify()

    def run(self, stop: threading.Event) -> None:
        """Store waiting texts until `stop` is set; drops those that still wait then."""
        while not stop.is_set():
            with self._changed:
                if not self._waiting and not self._changed.wait(0.2):
                    continue
                queued_at, draft, transcript = self._waiting.popleft()
                self._characters -= transcript.characters
            self._store_in_time(queued_at, draft, transcript, stop)

    def _store_in_time(self, queued_at: float, draft: Draft, transcript: Transcript, stop: threading.Event) -> None:
        def is_late() -> bool:
            return self._now() > queued_at + MAX_AGE_SECONDS

        def store() -> None:
            labels = self._definitions.draft_labels(draft.served.specialist)
            if labels is None:
                raise FailedPrecondition(Reason.NO_LONGER_KEPT, "The specialist no longer keeps its drafts' texts.")
            if is_late():
                raise FailedPrecondition(Reason.TOO_OLD, "The text waited too long.")
            self._publish(replace(draft, text=self._store(self._anonymize(transcript, labels))))

        try:
            retry(store, stop=stop, attempts=ATTEMPTS, initial_seconds=self._first_pause_seconds)
        except TailorError as error:
            if error.retryable and not is_late():
                with self._changed:
                    self._append(queued_at, draft, transcript)
                return
            log.warning("text of a draft not stored", draft_id=draft.draft_id, reason=error.reason)
        except Stopped:
            log.warning("text of a draft not stored", draft_id=draft.draft_id, reason=Reason.STOPPED)

    def _anonymize(self, transcript: Transcript, labels: Labels) -> Transcript:
        if transcript.anonymized:
            return transcript
        texts = [*(message.content for message in transcript.messages), transcript.answer]
        *contents, answer = self._anonymizer.anonymize(texts, labels)
        roles = (message.role for message in transcript.messages)
        messages = tuple(ChatMessage(role, content) for role, content in zip(roles, contents, strict=True))
        return replace(transcript, messages=messages, answer=answer, anonymized=True)
