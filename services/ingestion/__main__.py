"""Starts the service: `python -m services.ingestion`."""

from services.ingestion.bootstrap import build
from services.ingestion.settings import Settings
from tailor.runtime import main

if __name__ == "__main__":
    main("ingestion", Settings, build)
