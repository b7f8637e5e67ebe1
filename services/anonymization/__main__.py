"""Starts the service: `python -m services.anonymization`."""

import os
from pathlib import Path

from services.anonymization.recognise.detectors.definition import DEFAULT, NEED_TORCH, load_detectors
from tailor.blocked_imports import hide_packages
from tailor.errors import InvalidArgument


def _needs_torch() -> bool:
    """True if a detector loads torch. A wrong detectors file is reported when the service is built."""
    try:
        detectors = load_detectors(Path(os.environ.get("TAILOR_DETECTORS_FILE") or DEFAULT))
    except InvalidArgument:
        return False
    return any(detector.kind in NEED_TORCH for detector in detectors)


# Presidio and spaCy import these if they are installed: 600 MB and many seconds that finding names does not need.
if not _needs_torch():
    hide_packages("torch", "transformers", "sklearn")

from services.anonymization.bootstrap import build  # noqa: E402
from services.anonymization.settings import Settings  # noqa: E402
from tailor.runtime import main  # noqa: E402

if __name__ == "__main__":
    main("anonymization", Settings, build)
