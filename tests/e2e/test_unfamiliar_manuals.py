"""Manuals of a kind that no test corpus of ours has: published, built and trained on with the defaults of a specialist."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.publish import publish_all
from tailor.cli.submissions import Description, collect
from tailor.errors import NotFound
from tailor.rpc.channel import wire_errors
from tests.e2e.conftest import Installation, ask_until
from tests.manuals import KINDS, write_manuals

pytestmark = [pytest.mark.e2e, pytest.mark.release]

NAME, SOURCE = "manuals", "unfamiliar-manuals"
TWO_STEPS = """\
method = "sft"
[adapter]
kind = "lora"
r = 4
alpha = 8
[optimizer]
learning_rate = 1e-2
[batch]
tokens = 2048
[limit]
epochs = 1
max_steps = 2
"""


def test_manuals_by_other_hands_become_rows_and_a_run_that_succeeds(installation: Installation, tmp_path: Path) -> None:
    (installation.recipes / "two-steps.toml").write_text(TWO_STEPS, encoding="utf-8")
    write_manuals(tmp_path / "manuals", 3 * len(KINDS))
    labels = replace(Description(), source=SOURCE, department="it", confidentiality="internal")
    submissions = collect([tmp_path / "manuals"], labels)
    publish_all(Connections(Endpoints(installation.root)), submissions)

    def find_documents() -> list[str] | None:
        page = installation.registry.ListDocuments(registry_pb2.ListDocumentsRequest(page_size=1000), timeout=60)
        ids = [
            document.anonymized.document_id
            for document in page.documents
            if document.anonymized.labels.source == SOURCE
        ]
        return ids if len(ids) == len(submissions) else None

    ask_until(find_documents, f"{len(submissions)} documents of {SOURCE}", 400)
    specialist = models_pb2.SpecialistChanged(
        name=NAME, base="tiny", recipe="two-steps", selection=models_pb2.Selection(sources=[SOURCE])
    )
    installation.registry.CreateSpecialist(registry_pb2.CreateSpecialistRequest(specialist=specialist))
    synthetic = synthetic_pb2_grpc.SyntheticServiceStub(installation.channel("synthetic"))
    request = synthetic_pb2.BuildDatasetRequest(specialist=NAME, request_id="manuals")

    def build() -> synthetic_pb2.BuildDatasetResponse | None:
        # Until synthetic has read of the specialist.
        with contextlib.suppress(NotFound), wire_errors("synthetic"):
            return synthetic.BuildDataset(request, timeout=120)
        return None

    built = ask_until(build, "a dataset")
    training = training_pb2_grpc.TrainingServiceStub(installation.channel("training"))

    def find_end() -> training_pb2.Run | None:
        runs = training.ListRuns(training_pb2.ListRunsRequest(specialist=NAME), timeout=60).runs
        return next((run for run in runs if run.HasField("end_time")), None)

    run = ask_until(find_end, "the run's end", 400)
    assert (run.state, run.reason, run.message) == (training_pb2.RUN_STATE_SUCCEEDED, "", "")
    assert built.dataset.documents == len(submissions)
    assert "template" not in {entry.reason for entry in built.skipped} and run.report.rows_skipped == 0
