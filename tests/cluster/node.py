"""`make cluster`, `make cluster-down` and `make test-cluster-node`: a real cluster of one node on this machine.

    python -m tests.cluster.node up                             # start it
    docker save IMAGE | python -m tests.cluster.node load       # give it an image
    python -m tests.cluster.node down                           # remove it
    python -m tests.cluster.node test [FILE ...]                # tests on a node of their own

Its control plane, kubelet, kube-proxy, containerd, CoreDNS and kube-router, which enforces network policies, run isolated from this machine
(`isolation.py`); its state is in a folder outside the tree, which `down` removes. Needs root, and containerd, runc and ipset of the
distribution.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import yaml

from tests.cluster import tools_image
from tests.cluster.control_plane import Address, ControlPlane, start_control_plane
from tests.cluster.isolation import NODE as ADDRESS
from tests.cluster.isolation import POD_NETWORK, SERVICE_NETWORK, Isolation, Occupied, find, isolate, remove
from tests.cluster.programs import NODE, Programs, build, folder
from tests.installed import Missing, check_installed
from tests.real.servers import Server, free_ports
from tests.waiting import wait_until

NAME = "node1"
# The policy `training-cluster` lets the training service reach the API at its usual ports.
API_PORT = 6443
# That of NodeLocal DNSCache, for which the component `dns-node-local` opens the policies.
NAMES_ADDRESS = "169.254.20.10"
START_SECONDS = 120.0
LOG_LINES = 8
# What of the tests has no need of played nodes.
TESTS = ("tests/cluster/test_node.py", "tests/cluster/test_rights.py")
ALONE = "tests/cluster/test_node_leaves_nothing.py"
NEEDED = {
    "containerd": "containerd: apt-get install containerd",
    "runc": "runc: apt-get install runc",
    "iptables": "iptables: apt-get install iptables",
    "ipset": "ipset: apt-get install ipset",
    "ip": "ip: apt-get install iproute2",
    "nsenter": "nsenter and unshare: apt-get install util-linux",
    **tools_image.NEEDED,
}
# What programs in it find on PATH: containerd starts runc and its shim, kubelet and kube-proxy change rules and mounts.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def state() -> Path:
    """The folder of the node."""
    return folder() / "node"


def kubeconfig() -> Path:
    """The administrator's access to the running node."""
    return state() / "kubeconfig"


@dataclass(frozen=True)
class Node:
    """A running node."""

    plane: ControlPlane
    isolation: Isolation

    def load_image(self, archive: IO[bytes]) -> str:
        """Load an image that `docker save` wrote, and return containerd's line about it. Blocks. Raises AssertionError with its complaint."""
        command = [*self.isolation.enter, *_ctr(self.isolation.directory), "images", "import", "-"]
        done = subprocess.run(command, stdin=archive, check=False, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def drop_archived_layers(self, reference: str) -> None:
        """Remove the layers of a loaded image as they were in its archive. Its containers start from the unpacked ones."""
        listed = self._ctr("images", "ls", f"name=={reference}").splitlines()[1:]
        digests = [line.split()[2] for line in listed]
        layers: set[str] = set()
        while digests:
            manifest = json.loads(self._ctr("content", "get", digests.pop()))
            digests += [entry["digest"] for entry in manifest.get("manifests", [])]
            layers |= {layer["digest"] for layer in manifest.get("layers", [])}
        self._ctr("content", "rm", *sorted(layers))

    def _ctr(self, *arguments: str) -> str:
        return self.isolation.run(*_ctr(self.isolation.directory), *arguments)


def up(programs: Programs) -> Node:
    """Start the node. Blocks until it takes pods. Raises Occupied if one is there."""
    directory = state()
    if find(directory) is None:
        _clear(directory)
    elif kubeconfig().exists():
        raise Occupied(f"It runs already: KUBECONFIG={kubeconfig()}")
    directory.mkdir(parents=True, mode=0o700, exist_ok=True)
    try:
        return _start(programs, directory, isolate(directory))
    except BaseException:
        _show_logs(directory)
        down()
        raise


def find_node() -> Node:
    """The running node. Raises Missing if there is none."""
    isolation = find(state())
    if isolation is None or not kubeconfig().exists():
        raise Missing("No node runs on this machine: make cluster.")
    return Node(ControlPlane(kubeconfig()), isolation)


def down() -> None:
    """Remove the node with everything in it. Blocks. Without a node, it has no effect."""
    _clear(state())


def _clear(directory: Path) -> None:
    remove(directory)
    with suppress(FileNotFoundError):
        shutil.rmtree(directory)


def _show_logs(directory: Path) -> None:
    """Write the end of each program's log, which is about to go."""
    for path in sorted(directory.glob("*.log")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        sys.stderr.write("\n".join([f"== {path.name}", *lines, ""]))


def _start(programs: Programs, directory: Path, isolation: Isolation) -> Node:
    def start(name: str, *flags: str) -> None:
        path = shutil.which(name, path=f"{programs.folder}:{SYSTEM_PATH}")
        assert path is not None, name
        environment = {"PATH": SYSTEM_PATH}
        Server([*isolation.enter, path, *flags], environment, directory / f"{name}.log").start()

    _write_client_certificate(directory)
    address = Address(ADDRESS, SERVICE_NETWORK, API_PORT)
    plane = start_control_plane(directory, address, start, _api_flags(directory))
    node = Node(plane, isolation)
    (kubelet,) = free_ports(1)
    _write_containerd(programs, directory)
    _write_kubelet(directory, kubelet)
    _write_names(plane, directory)
    isolation.run("ip", "address", "add", f"{NAMES_ADDRESS}/32", "dev", "lo")
    start("containerd", f"--config={directory / 'containerd.toml'}")
    ask = [*isolation.enter, *_ctr(directory), "version"]
    wait_until(
        lambda: not subprocess.run(ask, capture_output=True, check=False).returncode, START_SECONDS, "containerd"
    )
    with tempfile.TemporaryFile() as archive:
        tools_image.write(archive)
        archive.seek(0)
        node.load_image(archive)
    access = f"--kubeconfig={plane.kubeconfig}"
    start("kubelet", access, *_kubelet_flags(directory))
    start("kube-proxy", access, *_proxy_flags())
    start("coredns", f"-conf={directory / 'Corefile'}")
    wait_until(lambda: _takes_pods(plane), START_SECONDS, "the node")
    # It ends at once unless it finds the node.
    start("kube-router", access, *_policy_flags())
    return node


def _ctr(directory: Path) -> tuple[str, ...]:
    return ("ctr", f"--address={directory / 'containerd.sock'}", "--namespace=k8s.io")


def _write_client_certificate(directory: Path) -> None:
    """With it, the API server asks the kubelet for logs, and for commands in containers. Nobody else may."""
    subject = ["-subj", "/O=system:masters/CN=apiserver", "-days", "30"]
    files = ["-keyout", str(directory / "to-kubelet.key"), "-out", str(directory / "to-kubelet.crt")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject]
    subprocess.run(command, check=True, capture_output=True)


def _api_flags(directory: Path) -> list[str]:
    return [
        f"--kubelet-client-certificate={directory / 'to-kubelet.crt'}",
        f"--kubelet-client-key={directory / 'to-kubelet.key'}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def _write_containerd(programs: Programs, directory: Path) -> None:
    network = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isGateway": True,
                "ipMasq": True,
                # A pod may reach itself through its Service.
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_NETWORK}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    (directory / "network").mkdir()
    (directory / "network" / "10-pods.conflist").write_text(json.dumps(network), encoding="utf-8")
    (directory / "containerd.toml").write_text(
        f"""version = 2
root = "{directory}/containerd"
state = "/run/containerd"
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{tools_image.NAME}"
  # Without the right to it in this machine, a container would not start.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{programs.folder}"
    conf_dir = "{directory}/network"
""",
        encoding="utf-8",
    )


def _write_kubelet(directory: Path, port: int) -> None:
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "port": port,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(directory / "to-kubelet.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{directory}/containerd.sock",
        "volumePluginDir": str(directory / "volume-plugins"),
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "clusterDNS": [NAMES_ADDRESS],
        "clusterDomain": "cluster.local",
        # The machine's disk is not the node's to tidy.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    }
    (directory / "kubelet.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")


def _kubelet_flags(directory: Path) -> list[str]:
    return [
        f"--config={directory / 'kubelet.yaml'}",
        f"--root-dir={directory / 'kubelet'}",
        f"--hostname-override={NAME}",
        f"--node-ip={ADDRESS}",
    ]


def _proxy_flags() -> list[str]:
    health, metrics = free_ports(2)
    return [
        f"--hostname-override={NAME}",
        f"--cluster-cidr={POD_NETWORK}",
        "--proxy-mode=iptables",
        # The machine's limits of connections stay as they are.
        "--conntrack-max-per-core=0",
        f"--healthz-bind-address=127.0.0.1:{health}",
        f"--metrics-bind-address=127.0.0.1:{metrics}",
    ]


def _policy_flags() -> list[str]:
    return [
        f"--hostname-override={NAME}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--health-port=0",
    ]


def _write_names(plane: ControlPlane, directory: Path) -> None:
    """CoreDNS as a process of the node, which every pod asks: Services, and pods of headless Services, by name."""
    (directory / "Corefile").write_text(
        f""".:53 {{
  bind {NAMES_ADDRESS}
  errors
  kubernetes cluster.local {{
    kubeconfig {plane.kubeconfig}
    ttl 5
  }}
}}
""",
        encoding="utf-8",
    )


def _takes_pods(plane: ControlPlane) -> bool:
    nodes = plane.kubectl("get", "node", NAME, "--output=yaml")
    account = plane.kubectl("get", "serviceaccount", "default")
    if nodes.returncode or account.returncode:
        return False
    node = yaml.safe_load(nodes.stdout)
    ready = [item["status"] for item in node["status"]["conditions"] if item["type"] == "Ready"]
    return ready == ["True"] and not node["spec"].get("taints")


def announce() -> None:
    """Start the node, and say how to use it. Raises Missing or Occupied."""
    programs = prepare()
    started = time.monotonic()
    node = up(programs)
    seconds = time.monotonic() - started
    sys.stderr.write(f"The node takes pods after {seconds:.0f} s. Its state is in {state()}.\n")
    sys.stdout.write(f"export KUBECONFIG={node.plane.kubeconfig}\n")


def prepare() -> Programs:
    """The programs of a node. Raises Missing if this machine cannot run one."""
    if os.geteuid():
        raise Missing("A node needs root: it makes namespaces and mounts.")
    check_installed(NEEDED, "a node", SYSTEM_PATH)
    if not Path("/proc/sys/net/bridge").exists():
        raise Missing("The kernel does not filter bridges: modprobe br_netfilter")
    return build(folder(), NODE)


def run_tests(files: Sequence[str]) -> int:
    """Run the test of the node itself, and then those on a node. Returns the first exit status that is not 0."""
    programs = prepare()
    command = [sys.executable, "-m", "pytest", "--durations=10"]
    alone = subprocess.run([*command, "--node", ALONE], check=False).returncode if not files else 0
    up(programs)
    try:
        environment = os.environ | {"KUBECONFIG": str(kubeconfig())}
        tests = subprocess.run([*command, "--cluster", *(files or TESTS)], env=environment, check=False)
    finally:
        down()
    return alone or tests.returncode


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 2 if a program is missing or another node is there."""
    command, files = arguments[0], arguments[1:]
    try:
        if command == "test":
            return run_tests(files)
        if command == "load":
            sys.stdout.write(f"{find_node().load_image(sys.stdin.buffer)}\n")
        else:
            {"up": announce, "down": down}[command]()
    except (Missing, Occupied) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
