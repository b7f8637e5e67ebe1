"""Starts the service: `python -m services.inference`."""

from services.inference.bootstrap import build
from services.inference.settings import Settings
from tailor.blocked_imports import hide_packages
from tailor.hardware import share_cores
from tailor.runtime import main

if __name__ == "__main__":
    # Transformers and peft would load these; no engine uses them.
    hide_packages("sklearn", "scipy", "bitsandbytes")
    share_cores()
    main("inference", Settings, build)
