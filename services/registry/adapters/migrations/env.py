"""Alembic's entry point."""

from tailor.sql import run_env

run_env()
