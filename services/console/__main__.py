"""Starts the service: `python -m services.console`."""

from services.console.bootstrap import build
from services.console.settings import Settings
from tailor.runtime import main

if __name__ == "__main__":
    main("console", Settings, build)
