"""Packages that are hidden look as if they were not installed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(code: str) -> list[str]:
    """The lines that the code prints in a fresh process."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_hidden_package_cannot_be_found_or_imported() -> None:
    code = """
import importlib.util
from tailor.blocked_imports import hide_packages
hide_packages("sqlite3", "no_such_package")
print(importlib.util.find_spec("sqlite3"))
try:
    import sqlite3.dbapi2
except ImportError:
    print("ImportError")
"""
    assert run(code) == ["None", "ImportError"]


def test_a_package_that_is_loaded_stays() -> None:
    code = """
import sqlite3
from tailor.blocked_imports import hide_packages
hide_packages("sqlite3")
import sqlite3 as again
print(again is sqlite3)
"""
    assert run(code) == ["True"]


def test_a_worker_hides_what_its_recipe_does_not_use() -> None:
    code = """
import importlib.util
from services.training.methods.loading import hide_unused_packages
from services.training.recipe import load_recipe
for name in ("qlora", "lora"):
    hide_unused_packages(load_recipe(name))
    print(*(package for package in ("sklearn", "scipy", "bitsandbytes") if importlib.util.find_spec(package)))
"""
    assert run(code) == ["bitsandbytes", ""]
