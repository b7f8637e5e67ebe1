"""Starts the service: `python -m services.inference`."""

from services.inference.bootstrap import build
from services.inference.settings import Settings
from tailor.runtime import main

if __name__ == "__main__":
    main("inference", Settings, build)
