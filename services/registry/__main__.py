"""Starts the service: `python -m services.registry`."""

from services.registry.bootstrap import build
from services.registry.settings import Settings
from tailor.runtime import main

if __name__ == "__main__":
    main("registry", Settings, build)
