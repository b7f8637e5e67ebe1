"""Alembic runs this file to migrate the database. A migration in `versions/` that was released is never changed: add another one."""

from tailor.sql import run_env

run_env()
