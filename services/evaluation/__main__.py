"""Starts the service: `python -m services.evaluation`."""

from services.evaluation.bootstrap import build
from services.evaluation.settings import Settings
from tailor.runtime import main

if __name__ == "__main__":
    main("evaluation", Settings, build)
