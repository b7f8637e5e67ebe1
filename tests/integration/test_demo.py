"""`tailor demo` from start to finish, with a real broker and fake services. `tests/e2e/test_demo.py` runs it with real ones."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import kafka
import pytest
from typer.testing import CliRunner

from tailor.api.evaluation.v1 import evaluation_pb2_grpc
from tailor.api.events.v1 import documents_pb2
from tailor.api.inference.v1 import inference_pb2_grpc
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.api.synthetic.v1 import synthetic_pb2_grpc
from tailor.api.training.v1 import training_pb2_grpc
from tailor.cli.main import app
from tailor.cli.reader import Start, TopicReader
from tailor.local import stack
from tailor.local.layout import BROKER
from tests.fakes.evaluation import FakeEvaluation
from tests.fakes.inference import FakeInference
from tests.fakes.registry import FakeRegistry
from tests.fakes.serving import ADAPTER, REFUSED_ADAPTER
from tests.fakes.synthetic import FakeSynthetic
from tests.fakes.training import FakeTraining

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SPECIALIST = 'name = "engagement-reports"\nbase = "tiny"\nrecipe = "lora"\n'
DOCUMENTS = 12


class Registry(FakeRegistry):
    """Counts as many documents as the pipeline answers."""

    def GetFlow(self, request: Any, context: Any) -> Any:
        return registry_pb2.GetFlowResponse(anonymized=DOCUMENTS - 1, rejected={"EMPTY": 1})


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """The state directory of a stack that consists of a broker."""
    state_dir = tmp_path / "state"
    stack.up(state_dir, only=(BROKER,)).wait_ready(600)
    yield state_dir
    stack.down(state_dir)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    folder = tmp_path / "sample"
    (folder / "documents").mkdir(parents=True)
    for number in range(DOCUMENTS):
        (folder / "documents" / f"{number}.md").write_text(f"# Memo {number}\n")
    (folder / "specialist.toml").write_text(SPECIALIST)
    (folder / "questions.json").write_text(json.dumps([{"question": "Why?"}, {"question": "When?"}]))
    return folder


@contextmanager
def services(state_dir: Path, training: Callable[[], Any]) -> Iterator[None]:
    """Run fake services at the addresses of the stack."""
    addresses = stack.connection(state_dir).service_addresses
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    fakes: list[tuple[Callable[[Any, grpc.Server], None], Callable[[], Any]]] = [
        (registry_pb2_grpc.add_RegistryServiceServicer_to_server, Registry),
        (training_pb2_grpc.add_TrainingServiceServicer_to_server, training),
        (synthetic_pb2_grpc.add_SyntheticServiceServicer_to_server, FakeSynthetic),
        (evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server, FakeEvaluation),
        (inference_pb2_grpc.add_InferenceServiceServicer_to_server, FakeInference),
    ]
    for add, fake in fakes:
        add(fake(), server)
    for address in addresses.values():
        server.add_insecure_port(address)
    server.start()
    stop = threading.Event()
    thread = threading.Thread(target=_answer_documents, args=(state_dir, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        server.stop(None).wait()


def _answer_documents(state_dir: Path, stop: threading.Event) -> None:
    """Reject the first submission, and publish every other one as anonymised, twice."""
    settings = stack.connection(state_dir).reader
    count = 0
    with (
        TopicReader(settings, ["document.submitted.v1"], Start.BEGINNING) as reader,
        closing(kafka.KafkaProducer(**settings.kafka_arguments())) as producer,
    ):
        while not stop.is_set():
            for _ in reader.poll():
                count += 1
                name = f"sub_{count}"
                if count == 1:
                    empty = documents_pb2.REJECTION_REASON_EMPTY
                    event = documents_pb2.DocumentRejected(submission_id=name, reason=empty)
                    producer.send("document.rejected.v1", event.SerializeToString())
                else:
                    passed = documents_pb2.DocumentAnonymized(submission_id=name, findings={"PERSON": 2})
                    for _ in range(2):
                        producer.send("document.anonymized.v1", passed.SerializeToString())
            producer.flush()


def _read_submitted(state_dir: Path) -> list[bytes]:
    """All submissions on the broker."""
    settings = stack.connection(state_dir).reader
    with TopicReader(settings, ["document.submitted.v1"], Start.BEGINNING) as reader:
        records: list[bytes] = []
        while batch := reader.poll(3000):
            records += [record.value for record in batch]
    return records


class RefusedTraining(FakeTraining):
    """Ends with an adapter that the gate refuses."""

    def _run(self, state: Any, step: int = 0) -> Any:
        run = super()._run(state, step)
        run.adapter_digest = run.adapter_digest and REFUSED_ADAPTER
        return run


def _demo(state_dir: Path, sample: Path, *options: str) -> Any:
    arguments = ["demo", "--sample", str(sample), "--state-dir", str(state_dir), *options]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})


def test_the_demo_goes_from_documents_to_answers_and_can_leave_the_stack_running(state_dir: Path, sample: Path) -> None:
    with services(state_dir, FakeTraining):
        result = _demo(state_dir, sample, "--keep")

    assert result.exit_code == 0, result.output
    figures = json.loads((state_dir / "demo.json").read_text())
    assert (figures["documents_published"], figures["documents_anonymized"]) == (DOCUMENTS, DOCUMENTS - 1)
    assert figures["documents_unchanged"] == 0
    assert figures["documents_rejected"] == {"EMPTY": 1}
    assert figures["personal_data_found"] == {"PERSON": 2 * (DOCUMENTS - 1)}
    assert figures["adapter"] == {"digest": ADAPTER}
    assert [answer["tuned"] for answer in figures["answers"]] == [
        "engagement-reports: Why?",
        "engagement-reports: When?",
    ]
    assert figures["promoted"] is True
    for step in ("up", "base", "documents", "dataset", "training", "evaluation", "asking"):
        assert f"{step}: done in" in result.stderr
    assert f"tailor trace drf_1 --state-dir {state_dir}" in result.stderr
    assert f"tailor down --state-dir {state_dir}" in result.stderr
    assert "held-out rows" in (state_dir / "demo-scores.txt").read_text()
    snapshot = stack.status(state_dir)
    assert snapshot is not None and snapshot.running


def test_a_refusal_by_the_gate_ends_the_demo_with_status_1_and_stops_the_stack(state_dir: Path, sample: Path) -> None:
    with services(state_dir, RefusedTraining):
        result = _demo(state_dir, sample)

    assert result.exit_code == 1
    assert "gate       refused: rougeL gains +0.001" in result.stdout
    lines = result.output.splitlines()
    assert lines.index("Stopping the stack ...") > next(
        n for n, line in enumerate(lines) if line.startswith("adapter  ")
    )
    assert "error: GATE_NOT_MET:" in result.stderr
    update = f"tailor specialist update {sample / 'specialist.toml'} --state-dir {state_dir}"
    assert update in result.stderr
    figures = json.loads((state_dir / "demo.json").read_text())
    assert (figures["promoted"], figures["answers"], figures["seconds"]["asking"]) == (False, [], 0.0)
    snapshot = stack.status(state_dir)
    assert snapshot is not None and not snapshot.running


def test_a_second_demo_publishes_only_what_changed(state_dir: Path, sample: Path) -> None:
    with services(state_dir, FakeTraining):
        first = _demo(state_dir, sample, "--keep")
        second = _demo(state_dir, sample, "--keep")
        figures = json.loads((state_dir / "demo.json").read_text())

    assert (first.exit_code, second.exit_code) == (0, 0), second.output
    assert f"all {DOCUMENTS} documents are unchanged since an earlier demo" in second.stderr
    assert (figures["documents_published"], figures["documents_unchanged"]) == (0, DOCUMENTS)
    assert len(_read_submitted(state_dir)) == DOCUMENTS


def test_an_invalid_sample_is_refused_and_leaves_a_running_stack_alone(state_dir: Path, sample: Path) -> None:
    (sample / "questions.json").write_text("{}")

    result = _demo(state_dir, sample)

    assert result.exit_code == 1
    assert result.stderr.startswith("error: INVALID_QUESTIONS:")
    snapshot = stack.status(state_dir)
    assert snapshot is not None and snapshot.running
