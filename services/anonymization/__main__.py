"""Starts the service: `python -m services.anonymization`."""

import os
import sys
from pathlib import Path

from services.anonymization.recognise.detectors.definition import DEFAULT, NEED_TORCH, load_detectors

# Presidio and spaCy import torch, transformers and scikit-learn if they are installed: 600 MB and many seconds that finding names
# does not need. None in sys.modules makes such an import fail with ImportError, which both libraries expect.
if not any(
    detector.kind in NEED_TORCH for detector in load_detectors(Path(os.environ.get("TAILOR_DETECTORS_FILE") or DEFAULT))
):
    sys.modules.update(dict.fromkeys(("torch", "transformers", "sklearn")))  # type: ignore[arg-type]

from services.anonymization.bootstrap import build
from services.anonymization.settings import Settings
from tailor.runtime import main

if __name__ == "__main__":
    main("anonymization", Settings, build)
