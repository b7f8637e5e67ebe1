"""A machine within this machine: own processes, network and mounts, which all end with its first process.

The mounts, bridges, network namespaces, rules of iptables and shims of containers of a node of Kubernetes are in there, never
outside. Outside are one pair of network devices, which ends with it, the cgroups of pods, and a few settings of the kernel that a
kubelet changes; those two `remove` brings back to what they were.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_until

# The link between the machine and the node, and what is behind the node.
HOST, NODE, LINK, PREFIX = "10.203.0.1", "10.203.0.2", "tailor-node", 30
POD_NETWORK, SERVICE_NETWORK = "10.202.0.0/16", "10.201.0.0/16"
SECONDS = 30.0
CGROUPS = Path("/sys/fs/cgroup")
# A kubelet and a kube-proxy set these for the whole machine.
KERNEL = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/netfilter/nf_conntrack_max",
)
# Its first process. It waits for orphans, such as the shims of containers that have ended.
FIRST = """
set -e
mount --make-rshared /
mount -t tmpfs tmpfs /run
mount --bind "$0/lib" /var/lib
mount --bind "$0/log" /var/log
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
touch "$0/isolated"
while :; do sleep 3600 & wait $!; done
"""


class Occupied(Exception):
    """Another node is on this machine. The message says what to do."""


@dataclass(frozen=True)
class Isolation:
    """A running machine within the machine. `process` is its first process, as seen from outside."""

    directory: Path
    process: int

    @property
    def enter(self) -> tuple[str, ...]:
        """The words in front of a command that runs in it."""
        return ("nsenter", f"--target={self.process}", "--mount", "--net", "--pid", "--")

    def run(self, *command: str) -> str:
        """Run a command in it and return its output. Raises CalledProcessError."""
        return _run(*self.enter, *command)


def isolate(directory: Path) -> Isolation:
    """Start one. Its files outside are under `directory`, which must be empty. Needs root. Raises Occupied."""
    if (Path("/sys/class/net") / LINK).exists() or _pod_cgroups():
        raise Occupied("A node of Kubernetes is on this machine. If it is yours, run `make cluster-down` first.")
    for name in ("lib", "log"):
        (directory / name).mkdir(parents=True)
    (directory / "kernel.json").write_text(json.dumps(kernel_settings()), encoding="utf-8")
    flags = ("--fork", "--kill-child", "--pid", "--mount-proc", "--net", "--mount", "--propagation=private")
    with (directory / "isolation.log").open("ab") as log:
        outer = subprocess.Popen(
            ["unshare", *flags, "bash", "-c", FIRST, str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    wait_until((directory / "isolated").exists, SECONDS, "the isolated processes")
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text(encoding="utf-8").split()
    isolation = Isolation(directory, int(children[0]))
    (directory / "isolation.json").write_text(json.dumps({"process": isolation.process}), encoding="utf-8")
    _link(isolation)
    return isolation


def kernel_settings() -> dict[str, str]:
    """The settings of the whole machine that a node may change, as they are now."""
    paths = {name: Path("/proc/sys") / name for name in KERNEL}
    return {name: path.read_text(encoding="utf-8").strip() for name, path in paths.items() if path.exists()}


def find(directory: Path) -> Isolation | None:
    """The one that runs with this folder, if there is one."""
    try:
        process = int(json.loads((directory / "isolation.json").read_text(encoding="utf-8"))["process"])
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:
        return None
    # The number may be another process's by now.
    return Isolation(directory, process) if str(directory).encode() in command.split(b"\0") else None


def remove(directory: Path) -> None:
    """End all its processes and bring back what was changed outside of them. Blocks. Without one, it has no effect."""
    isolation = find(directory)
    if isolation is not None:
        os.kill(isolation.process, signal.SIGKILL)
        wait_until(lambda: find(directory) is None, SECONDS, "the end of the isolated processes")
        # The kernel takes the link away once nothing is left in the network.
        wait_until(lambda: not (Path("/sys/class/net") / LINK).exists(), SECONDS, "the end of the network")
    if not (directory / "kernel.json").exists():
        return
    settings: dict[str, str] = json.loads((directory / "kernel.json").read_text(encoding="utf-8"))
    for name, value in settings.items():
        (Path("/proc/sys") / name).write_text(value, encoding="utf-8")
    for group in _pod_cgroups():
        _remove_cgroup(group)


def _link(isolation: Isolation) -> None:
    _run("ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", str(isolation.process))
    _run("ip", "address", "add", f"{HOST}/{PREFIX}", "dev", LINK)
    _run("ip", "link", "set", LINK, "up")
    isolation.run("ip", "address", "add", f"{NODE}/{PREFIX}", "dev", "eth0")
    isolation.run("ip", "link", "set", "eth0", "up")
    isolation.run("ip", "route", "add", "default", "via", HOST)
    for network in (POD_NETWORK, SERVICE_NETWORK):
        _run("ip", "route", "add", network, "via", NODE)


def _pod_cgroups() -> list[Path]:
    """The cgroup of all pods, one for each controller with cgroups of version 1."""
    return [*CGROUPS.glob("kubepods"), *CGROUPS.glob("*/kubepods")]


def _remove_cgroup(path: Path) -> None:
    for folder in sorted(path.rglob("*"), key=lambda item: len(item.parts), reverse=True):
        if folder.is_dir():
            _remove_empty(folder)
    _remove_empty(path)


def _remove_empty(path: Path) -> None:
    """Remove a cgroup as soon as its last process has gone."""
    deadline = time.monotonic() + SECONDS
    while path.exists():
        with contextlib.suppress(OSError):
            path.rmdir()
            return
        assert time.monotonic() < deadline, f"{path} still has processes"
        time.sleep(0.05)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout
