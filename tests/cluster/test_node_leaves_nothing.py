"""`make cluster` and `make cluster-down` leave the machine as it was."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.isolation import CGROUPS, LINK, kernel_settings
from tests.cluster.node import NAME, NEEDED, SYSTEM_PATH, down, kubeconfig, state, up
from tests.cluster.programs import NODE, Programs, build, folder
from tests.installed import check_installed

pytestmark = pytest.mark.release

# Where nodes of Kubernetes keep files, and what else one adds to.
FOLDERS = ("/etc", "/opt", "/run", "/run/netns", "/usr/libexec", "/var/lib", "/var/log", "/var/lib/cni")
# Parts of the names of programs that belong to it.
ITS_PROGRAMS = ("containerd", "runc", "kubelet", "kube-", "coredns", "etcd", str(state()))


@pytest.fixture(scope="module")
def node_programs(request: pytest.FixtureRequest) -> Iterator[Programs]:
    """The programs of a node, which is removed at the end in any case."""
    if not request.config.getoption("--node"):
        pytest.skip("starts a node on this machine: make test-cluster-node")
    check_installed(NEEDED, "a node", SYSTEM_PATH)
    yield build(folder(), NODE)
    down()


def processes() -> set[str]:
    """The processes of a node, by number and command."""
    lines = _output("ps", "-eo", "pid=,args=").splitlines()
    return {line for line in lines if any(name in line for name in ITS_PROGRAMS)}


def machine() -> dict[str, object]:
    """Everything of the machine that a node could change."""
    links = json.loads(_output("ip", "-json", "address"))
    return {
        "mounts": sorted(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()),
        "links": {link["ifname"]: [item["local"] for item in link["addr_info"]] for link in links},
        "routes": _output("ip", "route"),
        "network namespaces": _output("ip", "netns"),
        "rules": {program: _rules(program) for program in ("iptables-save", "ip6tables-save")},
        "cgroups": sorted(str(path) for path in CGROUPS.glob("*/kube*")),
        "kernel": kernel_settings(),
        "ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="utf-8"),
        "files": {name: _names(Path(name)) for name in FOLDERS},
    }


def test_a_node_comes_and_goes_without_a_trace(node_programs: Programs) -> None:
    before, others = machine(), processes()
    node = up(node_programs)
    try:
        pods = node.plane.kubectl("get", "nodes", "--output=name")
        assert pods.stdout.split() == [f"node/{NAME}"]
        # The comparison sees a node: its processes, its link, and the cgroups of its pods.
        assert len(processes() - others) >= 8
        assert LINK in str(machine()["links"])
        assert machine()["cgroups"] != before["cgroups"]
    finally:
        down()
    assert machine() == before
    assert processes() <= others
    assert not state().exists() and not kubeconfig().exists()


def test_removing_what_is_not_there_has_no_effect(node_programs: Programs) -> None:
    before = machine()
    down()
    assert machine() == before


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _rules(program: str) -> list[str]:
    return [line for line in _output(program).splitlines() if not line.startswith("#")]


def _names(path: Path) -> list[str]:
    """Names that a node would add. Other programs of the machine add theirs at the same time."""
    words = ("kube", "cni", "container", "netns", "pods", "xtables", "runc")
    names = [item.name for item in path.iterdir()] if path.is_dir() else []
    return sorted(name for name in names if any(word in name for word in words))
