"""Remembers published files, so that a repeated command publishes only those that are new or changed."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tailor.cli.submissions import FileSubmission


@dataclass(frozen=True)
class PublishedFiles:
    """The digest of each published file by the publisher's own id, in a JSON file that may not exist yet."""

    path: Path

    def choose_new(self, submissions: Iterable[FileSubmission]) -> list[FileSubmission]:
        """Those that were never published, or with another content or description."""
        known = self._read()
        return [item for item in submissions if known.get(item.document_id) != digest_submission(item)]

    def add(self, submissions: Iterable[FileSubmission]) -> None:
        """Remember files that were published. Replaces the file atomically."""
        digests = self._read() | {item.document_id: digest_submission(item) for item in submissions}
        partial = self.path.with_name(f".{self.path.name}.part")
        partial.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def _read(self) -> dict[str, str]:
        if not self.path.exists():
            return {}
        digests: dict[str, str] = json.loads(self.path.read_text(encoding="utf-8"))
        return digests


def digest_submission(submission: FileSubmission) -> str:
    """SHA-256 of the file's content and description."""
    description = json.dumps(asdict(submission.description), sort_keys=True)
    return hashlib.sha256(submission.path.read_bytes() + b"\0" + description.encode()).hexdigest()
