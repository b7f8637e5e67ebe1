"""Alembic runs this file."""

from tailor.sql import run_env

run_env()
