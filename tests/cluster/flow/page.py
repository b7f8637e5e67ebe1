"""docs/kubernetes/first-specialist.md, followed as its reader does: every command in its order, with this installation's own addresses."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import yaml

from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "kubernetes" / "first-specialist.md"
SECTION = re.compile(r"^## (.*)$", re.MULTILINE)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
# The page's own time limits are shorter.
BLOCK_SECONDS = 3600.0
END_SECONDS = 10.0
LOG_CHARACTERS = 3000


@dataclass(frozen=True)
class Section:
    """A question of the page, and the commands that answer it."""

    question: str
    blocks: Sequence[str]


def sections() -> list[Section]:
    """The page's sections with commands, in order."""
    _, *parts = SECTION.split(PAGE.read_text(encoding="utf-8"))
    found = [Section(question, BLOCK.findall(text)) for question, text in zip(parts[::2], parts[1::2], strict=True)]
    return [section for section in found if section.blocks]


@dataclass(frozen=True)
class Checkout:
    """The folder in which the commands run, the reader's kubeconfig, and what stands in place of the page's examples."""

    folder: Path
    kubeconfig: Path
    changes: Mapping[str, str]

    def fill(self, code: str) -> str:
        """A block for this installation."""
        for example, real in self.changes.items():
            code = code.replace(example, real)
        return code


def write_checkout(folder: Path, sample: Path, kustomization: Mapping[str, Any]) -> None:
    """Write what the commands use of a checkout: the programs, another sample in place of the demo's, and the reader's own overlay."""
    without = ignore_patterns("__pycache__", "sample")
    for name in ("k8s", "deploy", "tests/cluster/flow/tiny-cpu"):
        copytree(ROOT / name, folder / name, ignore=without)
    copytree(sample, folder / "deploy" / "sample")
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    ours = folder / "k8s" / "overlays" / "ours"
    ours.mkdir()
    (ours / "kustomization.yaml").write_text(yaml.safe_dump(dict(kustomization)), encoding="utf-8")


class Shell:
    """One shell for all blocks, so that variables and background programs stay. The first command that fails ends it."""

    def __init__(self, checkout: Checkout, process: subprocess.Popen[bytes]) -> None:
        self._checkout = checkout
        self._process = process

    def run(self, code: str) -> None:
        """Run a block. Blocks. Raises AssertionError with the end of what the shell wrote if a command fails."""
        folder = self._checkout.folder
        block, ended = folder / "block.sh", folder / "ended"
        block.write_text(self._checkout.fill(code), encoding="utf-8")
        ended.unlink(missing_ok=True)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(b". ./block.sh < /dev/null\ntouch ended\n")
            self._process.stdin.flush()
        wait_until(lambda: ended.exists() or self._process.poll() is not None, BLOCK_SECONDS, code)
        assert ended.exists(), f"{code}\n{_log(folder).read_text(encoding='utf-8')[-LOG_CHARACTERS:]}"


@contextmanager
def open_shell(checkout: Checkout) -> Iterator[Shell]:
    """A shell in the checkout; at the end, it and its background programs are stopped."""
    # Nothing of an installation elsewhere, such as an embedded stack's addresses.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILOR_")}
    environment = {**kept, "KUBECONFIG": str(checkout.kubeconfig), "PYTHONPATH": str(ROOT)}
    with _log(checkout.folder).open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail"],
            cwd=checkout.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Shell(checkout, process)
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(END_SECONDS)


def _log(folder: Path) -> Path:
    return folder / "page.log"
