"""Starts the service: `python -m services.training`."""

from services.training.bootstrap import build
from services.training.settings import Settings
from tailor.runtime import main

if __name__ == "__main__":
    main("training", Settings, build)
