"""Kueue as a process of this machine, with its own definitions. Its webhooks, which fill in and check objects, are not used."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.programs import KUEUE_MODULE, Programs
from tests.real.servers import Server, free_ports
from tests.waiting import wait_for_port

START_SECONDS = 60.0
# Kueue reads the certificate of its metrics at a fixed place, which only its own view of the file system has.
OWN_MOUNTS = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")))
WITH_CERTIFICATE = """
mount -t tmpfs none /etc && mkdir -p /etc/kueue/metrics/certs && cp "$0"/tls.* /etc/kueue/metrics/certs && exec "$@"
"""
GROUP, VERSION = "kueue.x-k8s.io", "v1beta2"


@contextmanager
def run_kueue(programs: Programs, plane: ControlPlane, directory: Path) -> Iterator[None]:
    """Run Kueue for the control plane, stopped at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    folder = programs.source(KUEUE_MODULE) / "config" / "components" / "crd" / "bases"
    definitions = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.yaml"))]
    plane.apply(definitions)
    names = [f"crd/{definition['metadata']['name']}" for definition in definitions]
    served = plane.kubectl("wait", "--for=condition=Established", f"--timeout={START_SECONDS:.0f}s", *names)
    assert served.returncode == 0, served.stderr
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
    environment = {
        "PATH": os.defpath,
        "USER": "kueue",
        "HOME": str(directory),
        "KUBECONFIG": str(plane.kubeconfig),
    }
    command = [*OWN_MOUNTS, "sh", "-c", WITH_CERTIFICATE, str(directory), programs.path("kueue"), f"--config={path}"]
    server = Server(command, environment, directory / "kueue.log")
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
