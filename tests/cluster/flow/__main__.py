"""`make test-cluster-flow`: the prod overlay with our own images on a real node of this machine, from documents to answers and beyond.

Apache Kafka, MinIO and PostgreSQL run outside of the cluster. It follows docs/kubernetes/first-specialist.md, from an empty cluster to a
served specialist, tries the network policies, opens a Gateway and an Ingress, asks from another pod and from outside, restarts inference
meanwhile, kills a pod of each service, drains the node, evicts a worker in training, and erases a person. The figures go to `.tailor/bench/cluster.json`; the exit status is 1 if a step fails or an answer
is missing.

Needs what `make cluster` and `make test-real` need, docker, and 25 GB of free disk while it runs. The node is removed at the end; `--keep`
leaves node and stores until Ctrl-C. The services, the workers and the doors speak TLS. Not tried here: TLS to the stores.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import report
from deploy.pin_images import find_images
from tailor.cli.progress import ProgressReporter
from tailor.demo import Sample
from tailor.local.layout import SERVICES
from tests.cluster.flow import doors, life, overlay, page, reach
from tests.cluster.flow.calls import CallerPod
from tests.cluster.flow.images import load_images, name_of
from tests.cluster.flow.overlay import secret
from tests.cluster.flow.stores import Stores, run_stores
from tests.cluster.isolation import Occupied
from tests.cluster.node import Node, down, find_node, prepare, state, up
from tests.cluster.nodes import NAMESPACE
from tests.cluster.programs import GATEWAY, Programs, build
from tests.cluster.programs import folder as cluster_folder
from tests.installed import Missing, check_installed
from tests.models import make_tiny_base
from tests.real.fetch import fetch
from tests.real.fetch import folder as real_folder
from tests.unit.deploy.manifests import Document

NEEDED = {"docker": "docker with a running daemon: apt-get install docker.io"}
# Calls go on for a while after a restart, so that they meet the new replicas.
SETTLE_SECONDS = 10.0
LOG_LINES = 15

Figures = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 1 if the flow failed, 2 if a program is missing or another node is there."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.flow", description=__doc__.split("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave node and stores until Ctrl-C")
    options = parser.parse_args(arguments)
    try:
        check_installed(NEEDED, "images on a node")
        servers, programs = fetch(real_folder()), prepare()
        build(cluster_folder(), [GATEWAY])
        node = up(programs)
    except (Missing, Occupied) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="tailor-flow-", ignore_cleanup_errors=True) as directory:
        folder = Path(directory)
        try:
            with run_stores(servers, folder / "stores") as stores:
                try:
                    return run(node, programs, stores, folder)
                except BaseException:
                    show_trouble(node)
                    raise
                finally:
                    if options.keep:
                        wait_for_interrupt()
                    # Before the stores, whose clients are in it.
                    down()
        finally:
            down()


def run(node: Node, programs: Programs, stores: Stores, folder: Path) -> int:
    """Everything after the node and the stores have started. Returns the exit status."""
    progress, started = ProgressReporter(Console(stderr=True)), time.monotonic()
    documents = overlay.render(stores.settings, stores.networks)
    figures: Figures = {"objects": len(documents), "not_tried": ["TLS to stores"]}
    with progress.step("images", "build them or take them from docker, and load them into the node"):
        images = load_images(node, find_images(documents), progress.now)
        figures["images"] = {name: asdict(image) for name, image in images.items()}
        figures["node_bytes"] = disk_bytes(state() / "containerd")
    sample = life.copy_sample(folder / "sample")
    add_base(node, folder, sample.file.parent, documents)
    figures["documents"], key = follow_page(node, stores, folder, sample, progress)
    figures |= {"promoted": True, "pods_ready": life.wait_ready(node.plane, progress.now)}
    (image,) = (item for item in find_images(documents) if name_of(item) == "init")
    with progress.step("policies", "connect from every service to every other, and compare with the network policies"):
        figures["connections"] = asdict(reach.try_all(node.plane, documents, image, stores.networks))
    outside = doors.OutsideCaller(folder / "outside", key, sample.definition.name, sample.questions)
    with progress.step("doors", "open a Gateway and an Ingress, and make requests from outside"):
        routes = overlay.render(stores.settings, stores.networks, doors.COMPONENTS, doors.PATCHES)
        doors.open_doors(node, programs, routes, outside.folder)
        figures["doors"] = outside.visit(stores.read("operator.key"))
    pod = CallerPod(node.plane, documents, image, sample.definition.name, life.KEY_SECRET, sample.questions)
    figures |= strike(node, pod, outside, progress)
    operator_key, protection_key = stores.read("operator.key"), stores.read("protection.key")
    ca = stores.authority
    eviction = life.connect(node.plane, folder, ca, operator_key)
    with progress.step("eviction", "evict a worker in training"), eviction as access:
        figures["eviction"] = life.evict_worker(access, node.plane, sample.definition.name, progress.now)
    with progress.step("erasure", "erase a person"), life.connect(node.plane, folder, ca, protection_key) as access:
        figures["erasure"] = life.erase(access, progress.now)
    figures["jobs"] = life.count_worker_jobs(node.plane)
    figures["seconds"] = round(time.monotonic() - started)
    figures["steps"] = progress.seconds
    report.store("cluster", figures)
    progress.note(f"{figures}")
    return 0 if is_clean(figures) else 1


def follow_page(
    node: Node, stores: Stores, folder: Path, sample: Sample, progress: ProgressReporter
) -> tuple[int, str]:
    """Follow the page to a served specialist, and make a Secret with a caller's key. Returns the number of anonymised documents, and the key."""
    page.write_checkout(
        folder / "checkout", sample.file.parent, overlay.kustomization(stores.settings, stores.networks)
    )
    stores.link_into(folder / "checkout")
    checkout = page.Checkout(folder / "checkout", node.plane.kubeconfig, stores.examples)
    with page.open_shell(checkout) as shell, ExitStack() as forwards:
        operator = lru_cache(
            lambda: forwards.enter_context(
                life.connect(node.plane, folder, stores.authority, stores.read("operator.key"))
            )
        )
        reader = life.Reader(shell, operator, sample.definition, len(sample.documents))
        reader.follow(progress)
        key = life.make_caller_key(operator(), sample.definition.name)
        node.plane.apply([secret(life.KEY_SECRET, {"key": key})])
    return reader.anonymized, key


def strike(node: Node, pod: CallerPod, outside: doors.OutsideCaller, progress: ProgressReporter) -> Figures:
    """Restart inference and kill one of its pods under calls; then kill a pod of each other service, and drain the node."""
    parts: dict[str, Figures] = {}
    blows = {"restart": life.restart, "kill": life.kill}
    for name, blow in blows.items():
        with progress.step(name, f"{name} inference while another pod, and a caller outside, call it"):
            with pod.run(f"caller-{name}") as inside, outside.run(name) as through_gateway:
                seconds = blow(node.plane, "inference")
                time.sleep(SETTLE_SECONDS)
            counted = {"from_pod": life.describe_calls(inside), "from_outside": life.describe_calls(through_gateway)}
            parts[name] = {**counted, "seconds": seconds}
    with progress.step("kill the others", "kill a pod of each other service"):
        killed = {}
        with pod.run("caller-others") as inside:
            for service in SERVICES:
                if service != "inference":
                    progress.now(f"{service} is killed")
                    killed[service] = life.kill(node.plane, service)
        # A key that is not known yet cannot be checked while the only registry is away: these calls are reported, and not counted.
        parts["others"] = {"from_pod": life.describe_calls(inside), "seconds_until_ready": killed}
    with progress.step("drain", "drain the node, and take it into use again"):
        with pod.run("caller-drain") as inside:
            drained = life.drain(node.plane)
        # The registry is away for longer than the other services trust a key that they know: these are not counted, either.
        parts["drain"] = {"from_pod": life.describe_calls(inside), **drained}
    counted_parts = [parts[name][where] for name in blows for where in ("from_pod", "from_outside")]
    return {
        "calls": sum(part["calls"] for part in counted_parts),
        "calls_failed": sum(sum(part["failed"].values()) for part in counted_parts),
        **parts,
    }


def is_clean(figures: Figures) -> bool:
    """Whether everything went as it should, each part by its own figures."""
    erasure = figures["erasure"]
    return bool(
        figures["jobs"] > 0
        and figures["calls"] > 0
        and not figures["calls_failed"]
        and figures["connections"]["closed"] > 0
        and not figures["connections"]["surprises"]
        and are_open(figures["doors"])
        and figures["drain"]["kept"] == ["inference"]
        and figures["eviction"]["from_step"] > 0
        and erasure["documents"] == life.WITH_PERSON
        and not erasure["left"]
    )


def are_open(visits: Mapping[str, str]) -> bool:
    """Whether each request from outside was answered, and the one with an unknown key was refused."""
    return all(outcome == ("UNKNOWN_KEY" if "unknown" in name else "answered") for name, outcome in visits.items())


def add_base(node: Node, folder: Path, sample: Path, documents: Sequence[Document]) -> None:
    """Add the tests' tiny base, with a tokenizer of the sample's texts, to the overlay's namespace."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((sample / "source").rglob("*.md"))]
    node.plane.apply([document for document in documents if document["kind"] == "Namespace"])
    node.plane.apply([overlay.base_files(make_tiny_base(folder / "base", texts))])


def disk_bytes(folder: Path) -> int:
    """The disk space that a folder takes."""
    used = subprocess.run(["du", "--summarize", "--block-size=1", str(folder)], capture_output=True, check=True)
    return int(used.stdout.split()[0])


def show_trouble(node: Node) -> None:
    """Write the pods that are not ready, their events, and the end of their logs."""
    kubectl, where = node.plane.kubectl, f"--namespace={NAMESPACE}"
    for command in (("get", "pods,jobs", "--output=wide"), ("get", "events", "--sort-by=.lastTimestamp")):
        lines = kubectl(*command, where).stdout.splitlines()
        sys.stderr.write("\n".join([*lines[-40:], ""]))
    for pod in node.plane.core.list_namespaced_pod(NAMESPACE).items:
        if not life.is_ready(pod) and pod.status.phase != "Succeeded":
            log = kubectl("logs", where, pod.metadata.name, f"--tail={LOG_LINES}")
            sys.stderr.write(f"== {pod.metadata.name}\n{log.stdout or log.stderr}")


def wait_for_interrupt() -> None:
    """Return at Ctrl-C."""
    sys.stderr.write(f"Kept: KUBECONFIG={find_node().plane.kubeconfig}. Ctrl-C removes it.\n")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
