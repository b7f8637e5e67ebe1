"""The installer: which set a machine gets, what it says when it cannot, and that it starts with a Python that runs."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from deploy import install
from deploy.install import SETS, TORCH_CPU, Choice, InstallError

ROOT = Path(__file__).parents[3]


def offers(*, configured: bool = False, pytorch: bool = False) -> Callable[[Iterable[str]], bool]:
    """Indexes that have torch's CPU build, or not."""
    return lambda options: pytorch if options else configured


@pytest.mark.parametrize(
    ("gpu", "configured", "pytorch", "name", "options"),
    [
        (True, True, True, "cuda", ()),
        (False, True, True, "cpu", ()),
        (False, False, True, "cpu", tuple(TORCH_CPU)),
        (False, False, False, "cpu-index", ()),
    ],
)
def test_the_machine_decides_the_set(
    gpu: bool, configured: bool, pytorch: bool, name: str, options: tuple[str, ...]
) -> None:
    choice = install.choose("", offers(configured=configured, pytorch=pytorch), lambda: gpu)
    assert (choice.name, choice.options) == (name, options)


def test_a_named_set_is_installed_on_any_machine() -> None:
    assert install.choose("cpu-index", offers(configured=True), lambda: True) == Choice("cpu-index", "it was named")


def test_the_cpu_set_is_refused_if_no_index_has_it() -> None:
    with pytest.raises(InstallError, match=r"PIP_EXTRA_INDEX_URL.*SET=cpu-index"):
        install.choose("cpu", offers())


def test_a_full_disk_is_noticed_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(InstallError, match=r"1\.0 GB free, and the set needs 13\.0 GB"):
        install.announce(Choice("cuda", "it was named"), tmp_path)


def test_the_announcement_names_the_set_the_reason_and_the_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install.announce(Choice("client", "it was named"), tmp_path)
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "client, because it was named" in text
    assert "GB on disk" in text


def test_nothing_happens_if_the_same_set_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    install.write_stamp(tmp_path, install.make_stamp("client"))
    install.install(argparse.Namespace(set="", venv=str(tmp_path)))
    assert capsys.readouterr().err == ""


def test_an_interrupted_environment_is_made_again(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    python = install.create_environment(venv)
    (venv / "half-installed").touch()
    assert install.create_environment(venv) == python
    assert (venv / "half-installed").exists()
    install.create_environment(venv, clear=True)
    assert not (venv / "half-installed").exists()
    assert install.runs([str(python), "-c", "import pip"])


def test_an_environment_of_another_python_is_not_touched(tmp_path: Path) -> None:
    fake(tmp_path / "venv" / "bin" / "python", 'case "$2" in *version_info*) exit 1;; esac')
    with pytest.raises(InstallError, match=r"does not hold Python 3\.1.*VENV="):
        install.create_environment(tmp_path / "venv")


def test_a_missing_venv_module_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(fake(tmp_path / "python", "exit 1")))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(InstallError, match=rf"apt-get install python{version}-venv"):
        install.create_environment(tmp_path / "venv")


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_a_size_and_its_locks(name: str) -> None:
    assert {"download_gb", "disk_gb"} <= set(SETS[name]["size"])
    assert all(Path(lock).is_file() for lock in install.locks_of(name))


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


def test_an_unsupported_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    with pytest.raises(InstallError, match=r"3\.14 is not supported.*3\.13"):
        install.check_machine("")


def test_other_platforms_get_the_client_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    install.check_machine("client")
    with pytest.raises(InstallError, match="SET=client"):
        install.check_machine("cpu")


def test_a_module_that_cannot_be_imported_ends_with_the_reason(tmp_path: Path) -> None:
    program = fake(tmp_path / "venv" / "bin" / "python", "echo 'OSError: libcudart.so.13' >&2; exit 1")
    with pytest.raises(InstallError, match=r"torch is installed and cannot be imported \(OSError: libcudart\.so\.13\)"):
        install.check_imports(program, ["torch"])


def fake(path: Path, script: str) -> Path:
    """A program made of one line of shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def start(tmp_path: Path, path: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run install.sh, with Pythons that print which of them starts the installer."""
    home = tmp_path / "deploy"
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "install.sh", home)
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
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import deploy.install; print('packaging' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.stdout.strip() == "False", done.stderr
