"""The programs of a Kubernetes cluster for the tests: built once by Go, into a folder that is kept between runs.

They are never committed and never shipped. `TAILOR_CLUSTER_FOLDER` names the folder, by default `~/.cache/tailor/cluster`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.installed import check_installed

KUBERNETES = "1.34.2"
KWOK = "v0.8.0"
# Kueue 0.17 is built on the API of Kubernetes 1.34 or newer.
KUEUE = "v0.17.0"
# The newest whose libraries of Kubernetes are those of 1.34.
COREDNS = "v1.13.1"
# The plugins that connect pods to the node's network.
PLUGINS = "v1.9.1"
# Enforces network policies, by iptables. The newest that Go's proxy has. Flaws are reported for it; it runs on the tests' node only.
KUBE_ROUTER = "v2.1.0"
# The gateway of the whole flow. Of the versions that Go's proxy has, the one whose module is complete; it is made for Kubernetes 1.34.
GATEWAY = "traefik"
GATEWAY_MODULE = "github.com/traefik/traefik/v3@v3.6.12"
BUILD_SECONDS = 3600
# Kubernetes replaces its own libraries by folders of its repository, which `go install` refuses: a module of ours names their versions.
STAGING = (
    "api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap code-generator component-base"
    " component-helpers controller-manager cri-api cri-client csi-translation-lib dynamic-resource-allocation endpointslice externaljwt kms"
    " kube-aggregator kube-controller-manager kube-proxy kube-scheduler kubectl kubelet metrics mount-utils pod-security-admission"
    " sample-apiserver"
).split()
# By the name of the program; etcd has the version that this Kubernetes is built with.
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
}
KWOK_MODULE, KUEUE_MODULE = f"sigs.k8s.io/kwok@{KWOK}", f"sigs.k8s.io/kueue@{KUEUE}"
PLUGINS_MODULE = "github.com/containernetworking/plugins"
INSTALLED = {
    "kwok": f"sigs.k8s.io/kwok/cmd/kwok@{KWOK}",
    "kueue": f"sigs.k8s.io/kueue/cmd/kueue@{KUEUE}",
    "bridge": f"{PLUGINS_MODULE}/plugins/main/bridge@{PLUGINS}",
    "loopback": f"{PLUGINS_MODULE}/plugins/main/loopback@{PLUGINS}",
    "host-local": f"{PLUGINS_MODULE}/plugins/ipam/host-local@{PLUGINS}",
    "kube-router": f"github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@{KUBE_ROUTER}",
}
# Only what a cluster's names need: CoreDNS with all of its plugins would take a quarter of an hour.
NAMES = "coredns"
NAMES_MAIN = """package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func main() { coremain.Run() }
"""
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# With played nodes, and with a real one.
PLAYED = (*CONTROL_PLANE, "kwok", "kueue")
NODE = (*CONTROL_PLANE, "kubelet", "kube-proxy", NAMES, "bridge", "loopback", "host-local", "kube-router")
NEEDED = {
    "go": "Go 1.24 or newer: apt-get install golang-go, or the archive of the Go project",
    "kubectl": "kubectl: apt-get install kubernetes-client",
}


@dataclass(frozen=True)
class Programs:
    """The built programs."""

    folder: Path

    def path(self, name: str) -> str:
        """The path of a program."""
        return str(self.folder / name)

    def source(self, module: str) -> Path:
        """The folder of a Go module at a version, such as `sigs.k8s.io/kwok@v0.8.0`; fetched if it is not there."""
        found = subprocess.run(
            ["go", "mod", "download", "-json", module],
            cwd=self.folder,
            capture_output=True,
            check=True,
            timeout=BUILD_SECONDS,
        )
        return Path(json.loads(found.stdout)["Dir"])


def folder() -> Path:
    """Where the programs are kept."""
    return Path(os.environ.get("TAILOR_CLUSTER_FOLDER") or Path.home() / ".cache" / "tailor" / "cluster")


def build(root: Path, names: Sequence[str] = PLAYED) -> Programs:
    """Build those programs that are not there yet, about ten minutes at the first time. Raises Missing, or CalledProcessError if Go fails."""
    check_installed(NEEDED, "a Kubernetes cluster")
    target = root / f"kubernetes-{KUBERNETES}"
    source = root / f"kubernetes-{KUBERNETES}.source"
    missing = [name for name in names if not (target / name).is_file()]
    target.mkdir(parents=True, exist_ok=True)
    if set(missing) & set(PACKAGES):
        _write_module(source)
        _run(["go", "mod", "tidy"], source)
    if NAMES in missing:
        _write_names(root / f"{NAMES}-{COREDNS}.source")
    for name in missing:
        started = time.monotonic()
        sys.stderr.write(f"Building {name} for Kubernetes {KUBERNETES} by Go ...\n")
        _build_program(name, target, root / f"{NAMES}-{COREDNS}.source" if name == NAMES else source)
        size = (target / name).stat().st_size / 1e6
        sys.stderr.write(f"Built {name}: {size:.0f} MB in {time.monotonic() - started:.0f} s.\n")
    return Programs(target)


def _write_module(source: Path) -> None:
    source.mkdir(parents=True, exist_ok=True)
    minor = KUBERNETES.removeprefix("1.")
    lines = ["module example.com/cluster", "go 1.24.0"]
    lines += [f"replace k8s.io/{name} => k8s.io/{name} v0.{minor}" for name in STAGING]
    lines += [f"require k8s.io/kubernetes v{KUBERNETES}"]
    (source / "go.mod").write_text("\n".join(lines) + "\n", encoding="utf-8")
    imports = "".join(f'\t_ "{package}"\n' for package in PACKAGES.values())
    (source / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\nimport (\n{imports})\n", encoding="utf-8")


def _write_names(source: Path) -> None:
    source.mkdir(parents=True, exist_ok=True)
    module = f"module example.com/names\ngo 1.24.0\nrequire github.com/coredns/coredns {COREDNS}\n"
    (source / "go.mod").write_text(module, encoding="utf-8")
    (source / "main.go").write_text(NAMES_MAIN, encoding="utf-8")
    _run(["go", "mod", "tidy"], source)


def _build_program(name: str, target: Path, source: Path) -> None:
    output = target / f"{name}.part"
    if name in INSTALLED:
        _run(["go", "install", "-trimpath", INSTALLED[name]], target, {"GOBIN": str(target)})
        return
    if name == GATEWAY:
        # It replaces modules by others, so it is built from its own folder, which nothing may change.
        command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(output), "./cmd/traefik"]
        _run(command, Programs(target).source(GATEWAY_MODULE), {"GOFLAGS": "-mod=readonly -buildvcs=false"})
        output.rename(target / name)
        return
    # Kueue and kwok ask the server for its version.
    major, minor = KUBERNETES.split(".")[:2]
    version = "k8s.io/component-base/version"
    values = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s -w", *(f"-X {version}.{key}={value}" for key, value in values.items())])
    _run(["go", "build", "-trimpath", "-ldflags", flags, "-o", str(output), PACKAGES.get(name, ".")], source)
    output.rename(target / name)


def _run(command: Sequence[str], where: Path, more: dict[str, str] | None = None) -> None:
    # No compiler of C is needed, and the versions are those of the module.
    environment = (
        os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"} | (more or {})
    )
    subprocess.run(command, cwd=where, env=environment, check=True, timeout=BUILD_SECONDS)
