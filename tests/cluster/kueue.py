"""Kueue as a process of this machine, with its own definitions. Its webhooks, which fill in and check objects, are not used."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.programs import KUEUE_MODULE, Programs
from tests.real.servers import Server, free_ports
from tests.waiting import wait_for_port

START_SECONDS = 90.0
GROUP, VERSION = "kueue.x-k8s.io", "v1beta2"


@contextmanager
def run_kueue(programs: Programs, plane: ControlPlane, directory: Path) -> Iterator[None]:
    """Run Kueue for the control plane, stopped at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    folder = programs.source(KUEUE_MODULE) / "config" / "components" / "crd" / "bases"
    plane.apply([yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.yaml"))])
    webhook, metrics, health = free_ports(3)
    _write_certificate(directory)
    configuration = {
        "apiVersion": f"config.{GROUP}/{VERSION}",
        "kind": "Configuration",
        "namespace": "kube-system",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": f"127.0.0.1:{metrics}"},
        "webhook": {"host": "127.0.0.1", "port": webhook, "certDir": str(directory)},
        "internalCertManagement": {"enable": False},
        "leaderElection": {"leaderElect": False},
        "integrations": {"frameworks": ["batch/job"]},
        "featureGates": {"VisibilityOnDemand": False},
    }
    path = directory / "configuration.yaml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    environment = {"PATH": "/usr/bin:/bin", "KUBECONFIG": str(plane.kubeconfig)}
    server = Server([programs.path("kueue"), f"--config={path}"], environment, directory / "kueue.log")
    server.start()
    try:
        wait_for_port(health, START_SECONDS)
        yield
    finally:
        server.stop()


def _write_certificate(directory: Path) -> None:
    files = ["-keyout", str(directory / "tls.key"), "-out", str(directory / "tls.crt")]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject]
    subprocess.run(command, check=True, capture_output=True)
