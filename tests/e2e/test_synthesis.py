"""A synthesis with Tailor's own inference as the teacher, over the stack's database and services."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from services.synthetic.adapters import tables
from services.synthetic.adapters.commented_drafts import SqlCommentedDrafts
from services.synthetic.adapters.seed_documents import SqlSeedDocuments
from services.synthetic.adapters.syntheses import SqlSyntheses
from services.synthetic.adapters.synthesis_rows import SYNTHESIS
from services.synthetic.adapters.teacher import OpenAiModel
from services.synthetic.adapters.tokenizers import StoredTokenizers
from services.synthetic.domain import CleanTexts, Specialist
from services.synthetic.settings import Settings
from services.synthetic.synthesis.handlers import SynthesisCommands
from services.synthetic.synthesis.runner import SynthesisRunner
from services.synthetic.synthesis_domain import SeedExample, SynthesisSpec
from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.api.synthetic.v1.synthesis_pb2_grpc import SynthesisServiceStub
from tailor.errors import Reason
from tailor.jobs import JobKind, Jobs
from tailor.sql import connect
from tailor.storage.s3 import S3Store
from tests.conftest import Stores, plan_of
from tests.e2e.conftest import Installation
from tests.jobs import run_due

pytestmark = pytest.mark.e2e

BUDGET = 20_000
SPECIALIST = Specialist("tiny-synthesis", 1, "tiny", "tiny", use_teacher=True)
SPEC = SynthesisSpec(
    SPECIALIST.name,
    "risk-assessment",
    50,
    examples=(SeedExample("Assess the ferry.", "The ferry is a low risk."),),
    instruction="Assess the risk.",
    budget_tokens=BUDGET,
    max_answer_tokens=64,
)


@pytest.fixture
def settings(installation: Installation) -> Settings:
    return Stores(plan_of(installation.stack)).settings("synthetic", Settings)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = connect(settings.database_url.get_secret_value())
    yield engine
    engine.dispose()


def test_tailors_own_inference_teaches_within_the_budget(
    installation: Installation, engine: Engine, settings: Settings
) -> None:
    """The tiny model writes nothing useful. The test is about the way there and back: every answer is counted, and the budget holds."""
    syntheses, store = SqlSyntheses(engine), S3Store.from_settings(settings)
    documents = SqlSeedDocuments(engine, store)
    teacher = OpenAiModel(f"{installation.connection.inference_url}/v1", installation.operator_key, "base")
    comments = SqlCommentedDrafts(engine, store)
    commands = SynthesisCommands(
        syntheses, documents, lambda row_id, texts, labels: CleanTexts(tuple(texts), 0), teacher, None, {}, comments
    )
    created = commands.create(SPEC, SPECIALIST, "e2e")
    runner = SynthesisRunner(
        syntheses,
        teacher,
        None,
        documents,
        comments,
        {SPECIALIST.name: SPECIALIST}.get,
        StoredTokenizers(store),
        replace(settings.run_limits, parallel=2),
    )
    assert run_due(Jobs(engine, tables.jobs, [JobKind(SYNTHESIS, runner.run)]))

    stub = SynthesisServiceStub(installation.channel("synthetic"))
    shown = stub.GetSynthesis(pb.GetSynthesisRequest(synthesis_id=created.synthesis_id), timeout=60).synthesis
    assert shown.state == pb.SYNTHESIS_STATE_SUCCEEDED and shown.reason == Reason.BUDGET_SPENT
    assert shown.use.answers > 0 and 0 < shown.use.tokens + shown.use.lost_tokens <= BUDGET
    assert shown.use.reserved_tokens == 0
    request = pb.ListSamplesRequest(synthesis_id=created.synthesis_id, page_size=100)
    samples = stub.ListSamples(request, timeout=60).samples
    # Every answer became rows, or was refused for a reason.
    assert len(samples) >= shown.use.answers
    assert all(sample.reason for sample in samples if sample.state == pb.SAMPLE_STATE_REFUSED)
