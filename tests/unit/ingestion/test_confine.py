"""The sandbox of the worker, tried from inside."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from services.ingestion.adapters.confine import MACHINES, filter_program, has_landlock
from services.ingestion.adapters.parse import ParseLimits, ParserPool
from services.ingestion.domain import File

ROOT = Path(__file__).parents[3]
# Runs in a process that enters the sandbox exactly as the worker does. Each attempt reports the error that it met, or "done".
ATTEMPTS = """
import ctypes, json, mmap, os, resource, signal, socket, subprocess, sys, threading
from services.ingestion.adapters import worker

secret, writable, inherited = sys.argv[1:4]
parent = os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
worker.enter_sandbox(2**30)

def raw(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

attempts = {
    "socket": lambda: socket.socket(),
    "unix_socket": lambda: socket.socket(socket.AF_UNIX),
    "socketpair": lambda: socket.socketpair(),
    "name_lookup": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "io_uring": lambda: raw(425, 8, None),
    "write_new": lambda: open(writable + ".new", "w"),
    "write_old": lambda: open(writable, "r+"),
    "append": lambda: open(writable, "a"),
    "inherited_file": lambda: os.write(int(inherited), b"x"),
    "remove": lambda: os.remove(writable),
    "rename": lambda: os.rename(writable, writable + ".moved"),
    "folder": lambda: os.mkdir(writable + ".folder"),
    "mode": lambda: os.chmod(writable, 0o777),
    "memory_file": lambda: os.memfd_create("x"),
    "fork": lambda: os.fork(),
    "run": lambda: os.execv(sys.executable, [sys.executable, "-V"]),
    "subprocess": lambda: subprocess.run([sys.executable, "-V"]),
    "thread": lambda: threading.Thread(target=print).start(),
    "kill": lambda: os.kill(parent, 0),
    "trace": lambda: raw(101, 16, parent, 0, 0),
    "more_memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40)),
    "less_memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (2**20, 2**20)),
    "more_processor_time": lambda: resource.setrlimit(resource.RLIMIT_CPU, (2**20, resource.RLIM_INFINITY)),
    "mount": lambda: raw(165, b"none", b"/mnt", b"tmpfs", 0, None),
    "change_root": lambda: os.chroot("/usr"),
    "leave_folder": lambda: os.chdir("/"),
    "namespace": lambda: raw(272, 0x10000000),
    "read_secret": lambda: open(secret).read(),
    "read_environment_of_parent": lambda: open(f"/proc/{parent}/environ", "rb").read(),
    "read_passwords": lambda: open("/etc/passwd").read(),
}
results = {}
for name, attempt in attempts.items():
    try:
        attempt()
        results[name] = "done"
    except (OSError, RuntimeError, ValueError) as error:
        results[name] = type(error).__name__
import email.mime.audio, encodings.cp1253
results["import"] = "done"
os.write(1, json.dumps(results).encode())
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("outside")
    secret, writable = folder / "secret", folder / "writable"
    secret.write_text("key")
    writable.write_text("content")
    with writable.open("a") as inherited:
        arguments = [str(secret), str(writable), str(inherited.fileno())]
        run = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, *arguments],
            capture_output=True,
            cwd=ROOT,
            pass_fds=[inherited.fileno()],
            timeout=60,
            check=False,
        )
    assert run.returncode == 0, run.stderr.decode()
    assert writable.read_text() == "content"
    return dict(json.loads(run.stdout))


@pytest.mark.parametrize("name", ["socket", "unix_socket", "socketpair", "name_lookup", "io_uring"])
def test_a_worker_has_no_network(results: dict[str, str], name: str) -> None:
    assert results[name] != "done"


@pytest.mark.parametrize(
    "name",
    ["write_new", "write_old", "append", "inherited_file", "remove", "rename", "folder", "mode", "memory_file"],
)
def test_a_worker_writes_nothing(results: dict[str, str], name: str) -> None:
    assert results[name] != "done"


@pytest.mark.parametrize("name", ["fork", "run", "subprocess", "thread", "kill", "trace"])
def test_a_worker_cannot_reach_other_processes(results: dict[str, str], name: str) -> None:
    assert results[name] != "done"


@pytest.mark.parametrize(
    "name", ["more_memory", "less_memory", "more_processor_time", "mount", "change_root", "leave_folder", "namespace"]
)
def test_a_worker_cannot_change_its_limits_or_place(results: dict[str, str], name: str) -> None:
    assert results[name] != "done"


@pytest.mark.parametrize("name", ["read_secret", "read_environment_of_parent", "read_passwords"])
def test_a_worker_can_read_only_code(results: dict[str, str], name: str) -> None:
    if not has_landlock():
        pytest.skip("this kernel has no Landlock")
    assert results[name] != "done"


def test_a_worker_can_load_code(results: dict[str, str]) -> None:
    assert results["import"] == "done"


def test_the_worker_of_the_pool_is_sandboxed_in_an_empty_folder() -> None:
    pool = ParserPool(ParseLimits(wall_seconds=30, cpu_seconds=20, memory_bytes=2**30), 1)
    try:
        assert pool.parse(File(b"words", "a.txt")).text == "words\n"
        worker = pool._slots.get()
        pool._slots.put(worker)
        assert worker is not None
        process = Path(f"/proc/{worker._process.pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1")
        assert list((process / "cwd").iterdir()) == []
        assert len(list((process / "fd").iterdir())) == 4
        limits = (process / "limits").read_text().splitlines()
        assert any(line.split()[:5] == ["Max", "file", "size", "0", "0"] for line in limits)
        # Processor time is limited file by file: a worker that has parsed for long is not ended for it.
        assert any(line.split()[:4] == ["Max", "cpu", "time", "unlimited"] for line in limits)
        assert (process / "oom_score_adj").read_text().strip() == "1000"
    finally:
        pool.close()


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_the_filter_of_every_machine_is_short_enough_for_the_kernel(machine: str) -> None:
    assert 0 < len(filter_program(machine)) // 8 < 4096


def test_an_unknown_machine_is_rejected() -> None:
    with pytest.raises(OSError, match="no system call filter"):
        filter_program("pdp11")
    assert platform.machine() in MACHINES
