"""Install one of the locked sets of `requirements/` into a virtual environment with uv.

Chooses the set that the machine can use, repairs an interrupted installation, and imports torch and the engine at the end.
Standard library only: this runs before anything is installed, with pip, which installs uv.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.pip_settings import uv_environment

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
SETS: dict[str, dict[str, Any]] = tomllib.loads((REQUIREMENTS / "sets.toml").read_text(encoding="utf-8"))
STAMP = ".installed"
OLDEST_DRIVER = 580  # of the CUDA 13.0 that torch is built with
PROBE_SECONDS = 30
TORCH_CPU = ["--torch-backend", "cpu"]
# Wheels only: building runs a package's code. rouge-score has no wheel.
WHEELS = ["--only-binary", ":all:", "--no-binary", "rouge-score"]


class InstallError(Exception):
    """A failure, as one sentence that names the remedy."""


@dataclass(frozen=True)
class Choice:
    """The set to install, why, and uv's options for it."""

    name: str
    reason: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Environment:
    """A virtual environment with pip and uv."""

    python: Path
    variables: Mapping[str, str]

    def uv(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `uv pip`, with pip's settings."""
        return subprocess.run(
            self._command(*arguments), cwd=ROOT, env=self.variables, text=True, check=False, **options
        )

    def _command(self, name: str, *arguments: str) -> list[str]:
        return [str(self.python.with_name("uv")), "pip", name, "--python", str(self.python), *arguments]

    def sync(self, *arguments: str) -> int:
        """Run `uv pip sync`, and return its exit code. On a terminal it shows progress in place; a log gets no list of packages."""
        if sys.stderr.isatty():
            return self.uv("sync", *arguments).returncode
        command = self._command("sync", *arguments)
        with subprocess.Popen(command, cwd=ROOT, env=self.variables, text=True, stderr=subprocess.PIPE) as process:
            for line in process.stderr or ():
                if not line.startswith((" + ", " - ", " ~ ")):
                    print(line, end="", file=sys.stderr, flush=True)
        return process.returncode

    def offers_torch_cpu(self, options: Iterable[str]) -> bool:
        """Tell whether uv reaches torch's CPU build with these options."""
        variables = {"UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"} if options else {}
        probe = Environment(self.python, {**self.variables, **variables})
        arguments = ["--dry-run", "--no-deps", "--require-hashes", "--requirement", str(REQUIREMENTS / "torch-cpu.txt")]
        try:
            return probe.uv("install", *arguments, *options, capture_output=True, timeout=PROBE_SECONDS).returncode == 0
        except subprocess.TimeoutExpired:
            return False


def runs(command: list[str]) -> bool:
    """Tell whether a command succeeds."""
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def last_line(text: str) -> str:
    """The last line that says something."""
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no message"])[-1]


def check_machine(name: str) -> None:
    """Check that this Python is supported, and that the set has packages for this platform.

    Raises:
        InstallError: if not.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise InstallError(
            f"Python {version} is not supported: name one of 3.11, 3.12 and 3.13, make PYTHON=/path/to/python3.13."
        )
    linux = platform.system() == "Linux" and platform.machine() == "x86_64"
    if not linux and not SETS.get(name, {}).get("any_platform"):
        raise InstallError("The whole stack needs Linux on x86-64; `make install SET=client` installs the client here.")


def python_of(venv: Path) -> Path:
    """The Python of an environment."""
    return venv / ("Scripts" if os.name == "nt" else "bin") / "python"


def is_same_python(python: Path) -> bool:
    """Tell whether an environment's Python runs and has the minor version of the one that runs this."""
    return runs([str(python), "-c", f"import sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"])


def create_environment(venv: Path, *, clear: bool = False) -> Path:
    """Create the virtual environment, or complete one whose creation was interrupted; return its Python.

    With `clear`, everything in it is removed first.

    Raises:
        InstallError: if it cannot be created or has another Python.
    """
    python, version = python_of(venv), f"{sys.version_info[0]}.{sys.version_info[1]}"
    if clear or not runs([str(python), "-c", "import pip"]):
        if not runs([sys.executable, "-c", "import ensurepip, venv"]):
            raise InstallError(f"Python {version} has no venv module: apt-get install python{version}-venv")
        command = [sys.executable, "-m", "venv", *(["--clear"] if clear else []), str(venv)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InstallError(f"{venv} cannot be created: {last_line(done.stdout + done.stderr)}")
    if not is_same_python(python):
        raise InstallError(
            f"{venv} does not hold Python {version}: remove it, or name another directory, make VENV=.venv-other."
        )
    return python


def install_uv(python: Path) -> Environment:
    """Install uv at the version of its lock, by pip.

    Raises:
        InstallError: if pip fails.
    """
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command = [str(python), "-m", "pip", "install", *options, "--requirement", str(REQUIREMENTS / "uv.txt")]
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    if subprocess.run(command, env=environment, check=False).returncode:
        raise InstallError("pip could not install uv, for the reason above: check the network and `pip config list`.")
    return Environment(python, uv_environment(str(python)))


def has_gpu() -> bool:
    """Tell whether an NVIDIA GPU is present.

    Raises:
        InstallError: if its driver is too old for the set.
    """
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        drivers = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    except OSError:
        drivers = []
    if drivers and drivers[0].partition(".")[0].isdigit():
        if int(drivers[0].partition(".")[0]) < OLDEST_DRIVER:
            raise InstallError(
                f"The NVIDIA driver {drivers[0]} is too old for CUDA 13: install {OLDEST_DRIVER} or newer, or run make install SET=cpu."
            )
        return True
    gpus = Path("/proc/driver/nvidia/gpus")
    return gpus.is_dir() and any(gpus.iterdir())


def choose(name: str, offers: Callable[[Iterable[str]], bool], gpu: Callable[[], bool] = has_gpu) -> Choice:
    """The set that was named or installed before, or the machine's own.

    Raises:
        InstallError: if the set `cpu` is named and no index in reach has it.
    """
    if not name and gpu():
        return Choice("cuda", "an NVIDIA GPU is present")
    if name not in ("", "cpu"):
        return Choice(name, "it was named")
    if offers([]):
        return Choice("cpu", "pip's settings offer the CPU build of torch")
    if offers(TORCH_CPU):
        return Choice("cpu", "PyTorch's own index offers the CPU build of torch", tuple(TORCH_CPU))
    if name:
        raise InstallError(
            "No index in reach has the CPU build of torch: name one that has it in PIP_EXTRA_INDEX_URL, or run make install SET=cpu-index."
        )
    return Choice("cpu-index", "there is no GPU and no CPU build of torch in reach")


def announce(choice: Choice, venv: Path) -> None:
    """Print the set, why it was chosen, and how large it is.

    Raises:
        InstallError: if the disk has no room for it.
    """
    size = SETS[choice.name]["size"]
    how = f"measured {size['measured']}" if "measured" in size else "estimated"
    amount = f"{size['download_gb']} GB to download, {size['disk_gb']} GB on disk, {how}"
    title = SETS[choice.name]["title"]
    print(f"Installing the set {choice.name}, because {choice.reason}. {title}: {amount}.", file=sys.stderr, flush=True)
    free = shutil.disk_usage(venv).free / 1e9
    if size["disk_gb"] > free:
        needed = size["disk_gb"] - sum(path.lstat().st_size for path in venv.rglob("*") if not path.is_dir()) / 1e9
        if needed > free:
            raise InstallError(
                f"The disk has {free:.1f} GB free, and the set needs {needed:.1f} GB: free some space, "
                "or name a directory on another disk, make VENV=/path/to/venv."
            )


def locks_of(name: str) -> list[str]:
    """The paths of a set's locks."""
    return [str(REQUIREMENTS / lock) for lock in SETS[name]["locks"]]


def sync(environment: Environment, choice: Choice, locks: list[str]) -> None:
    """Make the environment hold exactly the packages of these locks: of every index, only files whose SHA-256 they have.

    Raises:
        InstallError: if uv fails.
    """
    builders = ["--build-constraints", locks_of(choice.name)[0]]
    if environment.sync("--require-hashes", *WHEELS, *builders, *choice.options, *locks):
        raise InstallError(
            "uv could not install the packages, for the reason above: check the network, `pip config list` and the free space, then run "
            "the command again; it continues where it stopped. A file with another hash than the lock's was changed or rebuilt: "
            "report its index."
        )


def write_image_lock(environment: Environment, choice: Choice, extra: str, packages: list[str]) -> Path:
    """Write the part of a set that one extra and some further packages need, and return its path.

    Raises:
        InstallError: if the set does not fit.
    """
    locks = locks_of(choice.name)
    options = [option for lock in locks for option in ("--constraints", lock)]
    for exclude in SETS[choice.name]["excludes"]:
        options += ["--excludes", str(REQUIREMENTS / exclude)]
    arguments = [
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--overrides",
        str(REQUIREMENTS / "overrides.txt"),
        *options,
    ]
    arguments += [*choice.options, "--extra", extra, "pyproject.toml", "-"]
    done = environment.uv("compile", *arguments, input="\n".join(packages), stdout=subprocess.PIPE)
    if done.returncode:
        raise InstallError(f"The set {choice.name} cannot be installed for {extra}, for the reason above.")
    names = {line.partition("==")[0] for line in done.stdout.splitlines()}
    path = environment.python.parents[1] / "packages.txt"
    path.write_text("\n".join(select_pins(map(Path, locks), names)) + "\n", encoding="utf-8")
    return path


def select_pins(locks: Iterable[Path], names: set[str]) -> list[str]:
    """The pins of some packages, with their hashes.

    Raises:
        InstallError: if a package is not locked.
    """
    pins = [pin for lock in locks for pin in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8").strip())]
    selected = sorted({pin for pin in pins if pin.partition("==")[0] in names})
    if missing := names - {pin.partition("==")[0] for pin in selected}:
        raise InstallError(f"The set does not have {', '.join(sorted(missing))}: run make lock.")
    return selected


def install_image(arguments: argparse.Namespace) -> None:
    """Install what one extra needs, without the project and the installer's tools; the lock stays next to the packages."""
    environment = install_uv(create_environment(Path(arguments.venv)))
    choice = choose(arguments.set, environment.offers_torch_cpu)
    lock = write_image_lock(environment, choice, arguments.extra, arguments.packages.split())
    sync(environment, choice, [str(lock)])
    locked = lock.read_text(encoding="utf-8")
    environment.uv("uninstall", *[tool for tool in ("pip", "setuptools", "uv") if f"\n{tool}==" not in locked])


def install(arguments: argparse.Namespace) -> None:
    """Install the set that the arguments name; nothing happens if it is installed.

    Raises:
        InstallError: if the machine does not allow it.
    """
    venv = Path(arguments.venv)
    stamp = read_stamp(venv)
    name = arguments.set or stamp.get("set", "")
    if name in SETS and stamp == make_stamp(name) and is_same_python(python_of(venv)):
        return
    check_machine(name)
    # An interrupted installation may have parts of packages. What was downloaded is in uv's cache.
    python = create_environment(venv, clear=stamp.get("digest") == "")
    write_stamp(venv, {"set": name, "digest": ""})
    environment = install_uv(python)
    choice = choose(name, environment.offers_torch_cpu)
    announce(choice, venv)
    sync(environment, choice, locks_of(choice.name))
    if environment.uv("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)).returncode:
        raise InstallError("The project itself cannot be installed, for the reason above.")
    check_imports(environment.python, SETS[choice.name]["imports"])
    write_stamp(venv, make_stamp(choice.name))


def check_imports(python: Path, imports: list[str]) -> None:
    """Import torch and the engine once, each in its own process.

    Raises:
        InstallError: if one cannot be imported.
    """
    for module in imports:
        command = [str(python), "-c", f"import {module}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InstallError(
                f"{module} is installed and cannot be imported ({last_line(done.stderr)}): remove {python.parents[1]} and install again."
            )


def make_stamp(name: str) -> dict[str, str]:
    """The record of a complete installation: its set, and a digest of its locks and of the project's own metadata."""
    paths = [*locks_of(name), str(REQUIREMENTS / "uv.txt"), str(ROOT / "pyproject.toml")]
    return {"set": name, "digest": hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()}


def read_stamp(venv: Path) -> dict[str, str]:
    """The record of the last complete installation."""
    try:
        stamp: dict[str, str] = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp


def write_stamp(venv: Path, stamp: Mapping[str, str]) -> None:
    """Record an installation, whose digest is empty until it is complete."""
    (venv / STAMP).write_text(json.dumps(stamp), encoding="utf-8")


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", default=".venv", help="the directory of the virtual environment")
    parser.add_argument("--set", default="", choices=["", *SETS], help="a set instead of the machine's own")
    parser.add_argument("--extra", default="", help="only what one extra of pyproject.toml needs, as an image does")
    parser.add_argument("--packages", default="", help="more packages of the set, separated by spaces, with --extra")
    arguments = parser.parse_args()
    try:
        install_image(arguments) if arguments.extra else install(arguments)
    except InstallError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: run the command again; it continues where it stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
