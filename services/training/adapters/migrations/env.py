"""Run by Alembic."""

from tailor.sql import run_env

run_env()
