"""Supersedes datasets with earlier versions of documents that stay.

A replay supersedes documents by the thousand. A new dataset for each would start as many runs, so they are remembered and handled
together once no further one arrives.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.synthetic.domain import SupersededVersion, SupersedeWaits
from services.synthetic.erasures import DatasetEraser
from services.synthetic.ports import SupersededVersions
from tailor.errors import TailorError
from tailor.events.erased import Erased, Forgotten
from tailor.logging import get_logger

log = get_logger(__name__)

TICK_SECONDS = 1.0
# Versions that are handled together.
MAX_VERSIONS = 50_000
DEFAULT_WAITS = SupersedeWaits()

# Confirms that a version is forgotten. Blocks until the broker has it.
Confirm = Callable[[Erased, Forgotten], None]


@dataclass(frozen=True)
class DatasetSuperseder:
    """Remembers superseded versions, and replaces the datasets with them in batches."""

    eraser: DatasetEraser
    versions: SupersededVersions
    confirm: Confirm
    waits: SupersedeWaits = DEFAULT_WAITS

    def remember(self, superseded: Erased) -> None:
        """Drop what was derived from the earlier versions of a document but datasets, which follow in a batch. Idempotent.

        If the new version has not arrived yet, the document is dropped until it does.
        """
        holdings, document_id = self.eraser.holdings, superseded.document_id
        segment, held = holdings.segment_of(document_id), holdings.held_versions([document_id]).get(document_id)
        version = SupersededVersion(document_id, superseded.erasure_id, superseded.sequence, segment)
        # First, because the segment is not known any more afterwards.
        self.versions.keep_superseded(version)
        if held is not None and held[0] < superseded.sequence:
            _, keys = holdings.forget_document(document_id)
        else:
            keys = holdings.forget_derived(document_id)
        self.eraser.delete(keys)
        self.eraser.forget_drawn(document_id)

    def run(self, stop: threading.Event) -> None:
        """Replace what is due until `stop` is set. A lost database, store or broker is waited for."""
        while not stop.wait(TICK_SECONDS):
            try:
                self.replace_if_due()
            except TailorError as error:
                if not error.retryable:
                    raise
                log.warning("superseded datasets wait", reason=error.reason)

    def replace_if_due(self) -> bool:
        """Replace the datasets with remembered versions and confirm these, if they are due. Blocks. True if there were any."""
        ages = self.versions.superseded_ages()
        if ages is None or (ages[0] < self.waits.max_seconds and ages[1] < self.waits.quiet_seconds):
            return False
        with self.versions.superseding() as is_held:
            versions = self.versions.superseded(MAX_VERSIONS) if is_held else []
            if versions:
                self._replace(versions)
        return bool(versions)

    def _replace(self, versions: Sequence[SupersededVersion]) -> None:
        """Replace the datasets, then confirm and forget each version; a killed process does all of it again."""
        held = self.eraser.holdings.held_versions([version.document_id for version in versions])
        current = {
            version.document_id: held[version.document_id][1] if version.document_id in held else ""
            for version in versions
        }
        known = {version.segment for version in versions if version.segment is not None}
        segments = known if len(known) == len({version.segment for version in versions}) else None
        digests, objects = self.eraser.replace_datasets(current, segments)
        log.info("datasets superseded", versions=len(versions), datasets=len(set().union(*digests.values())))
        for version in versions:
            named = tuple(sorted(digests[version.document_id]))
            counts = {"datasets": len(named), "objects": objects}
            # The objects belong to all versions together, and are counted once.
            objects = 0
            superseded = Erased(version.document_id, version.erasure_id, sequence=version.sequence)
            self.confirm(superseded, Forgotten(counts, named))
        self.versions.drop_superseded(versions)
