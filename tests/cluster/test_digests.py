"""Images by digest: the cluster refuses workloads and workers of runs whose images are named by tag."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kubernetes import client

from services.training.domain import Job
from tailor.errors import FailedPrecondition, Reason
from tests.cluster.control_plane import ControlPlane
from tests.cluster.nodes import NAMESPACE, SECONDS, remove_namespace
from tests.cluster.workers import OPTIONS, Place, runs
from tests.unit.deploy.manifests import build
from tests.unit.training.fakes import change_job
from tests.waiting import wait_until

pytestmark = pytest.mark.release

DIGEST = "@sha256:" + "a" * 64
POLICY = "tailor-images-by-digest"


@pytest.fixture(scope="module")
def strict(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The policy, and the prod overlay with digests and without replicas."""
    remove_namespace(plane)
    documents = build({"resources": ["../prod"], "components": ["../../components/digests-only"]})
    policies = [document for document in documents if document["kind"].startswith(("Namespace", "Validating"))]
    plane.apply(policies)
    wait_until(lambda: "images by tag" in try_to_apply(plane, documents), SECONDS, "the policy")
    for document in documents:
        pin(document)
    plane.apply(documents)
    yield plane
    admission = client.AdmissionregistrationV1Api(plane.api())
    admission.delete_validating_admission_policy_binding(POLICY)
    admission.delete_validating_admission_policy(POLICY)


def pin(document: dict[str, Any]) -> None:
    """Name the images of a workload by a digest."""
    if document["kind"] == "Deployment":
        document["spec"]["replicas"] = 0
    if document["kind"] in ("Deployment", "Job"):
        for container in document["spec"]["template"]["spec"]["containers"]:
            container["image"] = container["image"].rpartition(":")[0] + DIGEST


def try_to_apply(plane: ControlPlane, documents: Any) -> str:
    """The server's words about a Deployment that it would refuse; empty if it would take it."""
    text = yaml.safe_dump_all(document for document in documents if document["kind"] == "Deployment")
    tried = plane.kubectl("apply", "--server-side", "--dry-run=server", "--field-manager=tests", "-f", "-", stdin=text)
    return tried.stderr if tried.returncode else ""


def test_a_deployment_by_tag_is_refused_with_its_image_and_the_remedy(strict: ControlPlane) -> None:
    documents = build({"resources": ["../prod"]})
    refused = try_to_apply(strict, documents)
    assert "images by tag: registry.example/tailor/registry:" in refused and "deploy.pin_images" in refused


def test_a_worker_by_tag_fails_its_run_in_words_and_one_by_digest_runs(strict: ControlPlane, job: Job) -> None:
    place = Place(strict)
    try:
        with pytest.raises(FailedPrecondition, match="images by tag") as failure:
            place.launcher().start(job)
        assert failure.value.reason == Reason.KUBERNETES_REFUSED
        launcher = place.launcher(change_job(OPTIONS, image=f"registry.example/tailor/training{DIGEST}"))
        launcher.start(job)
        runs(place, launcher, job)
    finally:
        place.stop.set()
        strict.batch.delete_collection_namespaced_job(NAMESPACE, propagation_policy="Background")
