"""Starts the service: `python -m services.training`."""

from services.training.bootstrap import build
from services.training.settings import Settings
from tailor.hardware import share_cores
from tailor.runtime import main

if __name__ == "__main__":
    # For the child processes that compute.
    share_cores()
    main("training", Settings, build)
