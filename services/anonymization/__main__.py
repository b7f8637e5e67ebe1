"""Starts the service: `python -m services.anonymization`."""

import sys

# Presidio and spaCy import torch, transformers and scikit-learn if they are installed: 600 MB and many seconds that finding names
# does not need. None in sys.modules makes such an import fail with ImportError, which both libraries expect.
sys.modules.update(dict.fromkeys(("torch", "transformers", "sklearn")))  # type: ignore[arg-type]

from services.anonymization.bootstrap import build  # noqa: E402
from services.anonymization.settings import Settings  # noqa: E402
from tailor.runtime import main  # noqa: E402

if __name__ == "__main__":
    main("anonymization", Settings, build)
