"""A control plane on free ports of this machine: etcd, API server, controllers, scheduler, and kwok, which plays the nodes.

Nothing runs in its pods. kwok starts and deletes them as a kubelet would; those that PLAYED_BY names are left to the test.
"""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config

from tests.cluster.programs import KWOK_MODULE, Programs
from tests.real.servers import Server, free_ports
from tests.waiting import wait_until

START_SECONDS = 90.0
# A pod with this annotation gets no status from kwok: the test itself reports what a kubelet would.
PLAYED_BY = "tests.tailor/played-by"
# kwok's own pod-complete would end every Job at once.
READY, DELETE = "pod/fast/pod-ready", "pod/fast/pod-delete"
STAGES = ("node/fast/node-initialize", "node/heartbeat/node-heartbeat", READY, DELETE)
# A kubelet ends a pod that is deleted before it gives it up: by that, a Job's controller sees how it ended.
TERMINATE: dict[str, Any] = {
    "apiVersion": "kwok.x-k8s.io/v1alpha1",
    "kind": "Stage",
    "metadata": {"name": "pod-terminate"},
    "spec": {
        "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
        "selector": {
            "matchExpressions": [
                {"key": ".metadata.deletionTimestamp", "operator": "Exists"},
                {"key": ".status.phase", "operator": "NotIn", "values": ["Failed", "Succeeded"]},
            ]
        },
        "next": {
            "statusTemplate": """
{{ $now := Now }}
phase: Failed
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: false
  restartCount: 0
  state:
    terminated: {exitCode: 143, reason: Error, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}
{{ end }}
"""
        },
    },
}
# Short, so that a lost node is noticed within a test. A kubelet reports every 10 s, kwok every 20 to 25 s.
LOST_NODE = {"node-monitor-grace-period": "60s", "terminated-pod-gc-threshold": "100"}


# Starts a program of the cluster by its name, with flags.
Start = Callable[..., None]


@dataclass(frozen=True)
class Address:
    """Where a control plane listens, and the addresses that it gives to Services. `port` 0 is a free one."""

    host: str
    service_network: str
    port: int = 0


LOOPBACK = Address("127.0.0.1", "10.0.0.0/16")


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane and its administrator."""

    kubeconfig: Path

    def api(self, token: str | None = None) -> client.ApiClient:
        """A client of the administrator, or of who holds the token."""
        configuration = client.Configuration()
        config.load_kube_config(str(self.kubeconfig), client_configuration=configuration)
        if token is not None:
            configuration.api_key, configuration.api_key_prefix = {"authorization": f"Bearer {token}"}, {}
            configuration.refresh_api_key_hook = None
            configuration.cert_file = configuration.key_file = None
        return client.ApiClient(configuration)

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.api())

    @property
    def batch(self) -> client.BatchV1Api:
        return client.BatchV1Api(self.api())

    @property
    def apps(self) -> client.AppsV1Api:
        return client.AppsV1Api(self.api())

    @property
    def custom(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api())

    def kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator. Never raises for its exit status."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=300)

    def apply(self, documents: Sequence[dict[str, Any]]) -> str:
        """Apply on the server, as a pipeline would. Returns kubectl's lines. Raises AssertionError with its complaint."""
        text = yaml.safe_dump_all(documents)
        applied = self.kubectl("apply", "--server-side", "--field-manager=tests", "-f", "-", stdin=text)
        assert applied.returncode == 0, applied.stderr
        return applied.stdout

    def service_account_token(self, namespace: str, name: str) -> str:
        """A token as a pod of the ServiceAccount would have."""
        request = client.AuthenticationV1TokenRequest(
            spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=3600)
        )
        made = self.core.create_namespaced_service_account_token(name, namespace, request)
        return str(made.status.token)


@contextmanager
def run_control_plane(programs: Programs, directory: Path) -> Iterator[ControlPlane]:
    """Run a control plane without nodes, stopped at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as cleanup:

        def start(name: str, *flags: str) -> None:
            server = Server([programs.path(name), *flags], {"PATH": "/usr/bin:/bin"}, directory / f"{name}.log")
            server.start()
            cleanup.callback(server.stop)

        plane = start_control_plane(directory, LOOPBACK, start)
        (kwok,) = free_ports(1)
        _write_stages(programs, directory / "stages.yaml")
        start("kwok", f"--kubeconfig={plane.kubeconfig}", *_kwok_flags(directory, kwok))
        yield plane


def start_control_plane(directory: Path, address: Address, start: Start, api_flags: Sequence[str] = ()) -> ControlPlane:
    """Start a control plane by `start`, and wait until it answers. Its keys and its kubeconfig are in `directory`."""
    _write_keys(directory)
    etcd, peers, free = free_ports(3)
    port = address.port or free
    plane = _write_access(directory, f"https://{address.host}:{port}")
    start("etcd", *_etcd_flags(directory, etcd, peers))
    start("kube-apiserver", *_api_flags(directory, address, port, etcd), *api_flags)
    wait_until(lambda: _is_ready(plane), START_SECONDS, "the API server")
    kubeconfig = f"--kubeconfig={plane.kubeconfig}"
    start("kube-controller-manager", kubeconfig, *_controller_flags(directory))
    start("kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0")
    return plane


def _write_keys(directory: Path) -> None:
    private, public = directory / "accounts.key", directory / "accounts.pub"
    subprocess.run(["openssl", "genrsa", "-out", str(private), "2048"], check=True, capture_output=True)
    subprocess.run(
        ["openssl", "rsa", "-in", str(private), "-pubout", "-out", str(public)], check=True, capture_output=True
    )


def _write_access(directory: Path, url: str) -> ControlPlane:
    """The administrator's token, and a kubeconfig with it."""
    token = secrets.token_urlsafe(32)
    (directory / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n', encoding="utf-8")
    ca_file, path = directory / "certificates" / "apiserver.crt", directory / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": url, "certificate-authority": str(ca_file)}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
        "current-context": "tests",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content), encoding="utf-8")
    return ControlPlane(path)


def _etcd_flags(directory: Path, port: int, peers: int) -> list[str]:
    address = f"http://127.0.0.1:{port}"
    return [
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={address}",
        f"--advertise-client-urls={address}",
        f"--listen-peer-urls=http://127.0.0.1:{peers}",
        # Nothing has to survive a test.
        "--unsafe-no-fsync",
    ]


def _api_flags(directory: Path, address: Address, port: int, etcd: int) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        f"--secure-port={port}",
        f"--bind-address={address.host}",
        f"--advertise-address={address.host}",
        f"--cert-dir={directory / 'certificates'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        f"--service-account-key-file={directory / 'accounts.pub'}",
        f"--service-account-signing-key-file={directory / 'accounts.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={address.service_network}",
        "--authorization-mode=RBAC",
    ]


def _controller_flags(directory: Path) -> list[str]:
    return [
        f"--service-account-private-key-file={directory / 'accounts.key'}",
        f"--root-ca-file={directory / 'certificates' / 'apiserver.crt'}",
        "--use-service-account-credentials=false",
        "--leader-elect=false",
        "--secure-port=0",
        *(f"--{name}={value}" for name, value in LOST_NODE.items()),
    ]


def _kwok_flags(directory: Path, port: int) -> list[str]:
    return [
        "--manage-all-nodes=true",
        "--cidr=10.10.0.0/16",
        "--node-ip=10.0.0.1",
        f"--config={directory / 'stages.yaml'}",
        f"--server-address=127.0.0.1:{port}",
    ]


def _write_stages(programs: Programs, path: Path) -> None:
    """kwok's own stages of nodes and pods, except for pods that the test plays."""
    stages = [TERMINATE]
    for name in STAGES:
        file = programs.source(KWOK_MODULE) / "kustomize" / "stage" / f"{name}.yaml"
        stage = yaml.safe_load(file.read_text(encoding="utf-8"))
        conditions = stage["spec"]["selector"]["matchExpressions"]
        if name == READY:
            conditions.append({"key": f'.metadata.annotations["{PLAYED_BY}"]', "operator": "DoesNotExist"})
        if name == DELETE:
            conditions.append({"key": ".status.phase", "operator": "In", "values": ["Failed", "Succeeded"]})
        stages.append(stage)
    path.write_text(yaml.safe_dump_all(stages), encoding="utf-8")


def _is_ready(plane: ControlPlane) -> bool:
    # The built-in roles and priorities are made after the server has started to listen.
    return plane.kubectl("get", "--raw=/readyz").returncode == 0
