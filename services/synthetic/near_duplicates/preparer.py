"""Prepares documents before any build: every text is read and sketched once, and joined to the texts that are nearly the same."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from services.synthetic.adapters.sketches import SqlSketches
from services.synthetic.corpus import NearDuplicateCount, Sketch
from services.synthetic.datasets import read_text
from services.synthetic.domain import Document
from services.synthetic.near_duplicates.minhash import MinHashSketcher
from tailor.errors import Aborted, Reason
from tailor.jobs import HeldJob
from tailor.retry import Stopped
from tailor.storage.protocol import ObjectStore
from tailor.values import Selection

BATCH = 200
READERS = 8
RETRY_SECONDS = 1.0
LOCK_SECONDS = 0.1
# Another replica holds the lock for one batch at a time.
LOCK_ATTEMPTS = 600


@dataclass(frozen=True)
class DocumentPreparer:
    """Prepares documents in batches. A batch is stored in one transaction, so that a killed process loses at most its running batch."""

    sketches: SqlSketches
    sketcher: MinHashSketcher
    store: ObjectStore
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def run(self, job: HeldJob) -> float | None:
        """Prepare the documents that arrived (a `jobs.Handle`). Blocks."""
        while self.prepare_batch(Selection()):
            if job.stop.is_set():
                raise Stopped
        # A build, or a call that counts, may hold the lock.
        return RETRY_SECONDS if self.sketches.missing(Selection(), 1) else None

    def prepare(self, selection: Selection) -> None:
        """Prepare all selected documents, also again those that could not be read. Blocks.

        Raises Aborted (PREPARATION_RUNNING) if another replica keeps the lock for a minute.
        """
        self.sketches.retry_unreadable(selection)
        waits = 0
        while self.sketches.missing(selection, 1):
            if self.prepare_batch(selection):
                waits = 0
                continue
            waits += 1
            if waits > LOCK_ATTEMPTS:
                raise Aborted(Reason.PREPARATION_RUNNING, "Another replica is preparing documents. Retry.")
            self.sleep(LOCK_SECONDS)

    def prepare_batch(self, selection: Selection) -> int:
        """Prepare at most BATCH documents; returns their number, 0 also while another thread or replica prepares."""
        with self.sketches.preparing() as is_held:
            documents = self.sketches.missing(selection, BATCH) if is_held else []
            if documents:
                self.sketches.keep(self._sketch(documents))
            return len(documents)

    def count(self, selection: Selection, seconds: float = 2.0) -> NearDuplicateCount:
        """Prepare as far as the time allows, then count near-duplicates among what is prepared. Blocks."""
        end = self.clock() + seconds
        while self.clock() < end and self.prepare_batch(selection):
            pass
        return self.sketches.count(selection)

    def _sketch(self, documents: list[Document]) -> list[Sketch]:
        with ThreadPoolExecutor(READERS) as pool:
            texts = pool.map(lambda document: read_text(self.store, document), documents)
            pairs = zip(documents, texts, strict=True)
            return [self.sketcher.sketch(document, text) if text else Sketch(document) for document, text in pairs]
