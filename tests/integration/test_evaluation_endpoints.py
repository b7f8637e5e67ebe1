"""Judge, external model and prompt optimiser over Tailor's own OpenAI-style API, with a real engine behind it."""

import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.evaluation.adapters.chat_endpoint import OpenAiEndpoint
from services.evaluation.adapters.judge import OpenAiJudge
from services.evaluation.baselines import gepa_optimizer
from services.evaluation.baselines.external import ExternalLimits, ExternalModel
from services.evaluation.baselines.gepa_optimizer import PromptTask
from services.evaluation.domain import Answer, AnsweredRow, HeldOutRow, LoadedCandidate, Score
from services.evaluation.judge.prompts import DEFAULT_CRITERIA, Request, Rules, rubric_request
from services.evaluation.metrics import measure
from services.evaluation.metrics.context import MetricContext
from services.evaluation.ports import Models
from services.inference.domain import ChatMessage
from services.inference.generation import ReadinessGate
from services.inference.ports import InferenceEngine
from services.inference.web.http import Address, UvicornServer, create_app
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.identity import Trust
from tailor.storage.ref import Ref
from tailor.values import MetricDefinition, SamplingDefaults
from tests.models import make_tiny_base
from tests.unit.inference.fakes import forwarder, make_world
from tests.waiting import wait_for_port

pytestmark = pytest.mark.integration

SECRET = "tlr_evaluation"
ROWS = tuple(
    HeldOutRow(
        f"row_{number}", "report", (f"doc_{number}",), (("user", f"Write finding {number}."),), f"Finding {number}."
    )
    for number in range(4)
)


def verify(digest: str) -> Caller:
    import hashlib

    if digest != hashlib.sha256(SECRET.encode()).hexdigest():
        raise NotFound(Reason.UNKNOWN_KEY, "No such key.")
    return Caller("key", "evaluation", "ROLE_CALLER", key_id="key_1")


@dataclass(frozen=True)
class OwnModels(Models):
    """The base: scored by the engine, answered by the API."""

    engine: InferenceEngine
    endpoint: OpenAiEndpoint

    def load(self, adapter_digest: str, manifest: Ref) -> LoadedCandidate:
        raise NotFound(Reason.UNKNOWN_MODEL, "There are no candidates here.")

    def generate(self, model: str, messages: Sequence[tuple[str, str]], sampling: SamplingDefaults) -> Answer:
        return self.endpoint.complete(messages, sampling)

    def score(self, model: str, messages: Sequence[tuple[str, str]], completion: str) -> Score:
        chat = tuple(ChatMessage(role, content) for role, content in messages)
        score = self.engine.score(chat, completion, "")
        return Score(score.log_probability, score.tokens)


@dataclass(frozen=True)
class Api:
    """The HTTP API on a port, and the engine behind it."""

    url: str
    engine: InferenceEngine

    def endpoint(self, model: str = "base", key: str = SECRET) -> OpenAiEndpoint:
        return OpenAiEndpoint("own", self.url, model, api_key=key)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    from services.inference.engines.transformers_engine import TransformersEngine

    # The tokenizer knows the judge's prompt, so that it fits the small context.
    messages, _ = rubric_request(Request(ROWS[0].prompt, ROWS[0].reference), "It writes.", Rules(DEFAULT_CRITERIA))
    texts = [text for _, text in messages] + [row.reference for row in ROWS]
    folder: Path = make_tiny_base(tmp_path_factory.mktemp("base") / "tiny", texts)
    engine = TransformersEngine(folder, targets=(), context_length=2048, threads=1)
    gate, stop = ReadinessGate(), threading.Event()
    gate.open(make_world(engine=engine).inference)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(gate, Authenticator("inference", Trust({}), verify), forwarder(), 16)
    thread = threading.Thread(target=UvicornServer(app, Address("127.0.0.1", port)).run, args=(stop,))
    thread.start()
    wait_for_port(port)
    yield Api(f"http://127.0.0.1:{port}/v1", engine)
    stop.set()
    thread.join(60)
    engine.close()


def test_the_base_marks_answers_as_the_judge_model(api: Api) -> None:
    judge = OpenAiJudge(api.url, SECRET, "base")
    rows = [AnsweredRow(row, "It writes.", None) for row in ROWS]
    context = MetricContext(judge=judge, concurrency=1)
    measured = measure(MetricDefinition("marks", "judge"), rows, context)
    assert measured.rows == len(ROWS) and 1 <= measured.value() <= 5
    assert set(measured.parts) == {criterion.name for criterion in DEFAULT_CRITERIA}


def test_the_base_answers_as_an_external_model(api: Api) -> None:
    model = ExternalModel("own", api.endpoint(), "Be brief.", ExternalLimits(attempts=1))
    answer = model.answer(ROWS[0], SamplingDefaults(temperature=0.7, max_tokens=5))
    assert 1 <= answer.tokens <= 5 and answer.prompt_tokens > 5 and answer.seconds > 0
    assert model.refused == 0


@pytest.mark.parametrize(
    ("model", "key", "reason"),
    [("base", "tlr_other", "EXTERNAL_KEY_REFUSED"), ("no-such-model", SECRET, "UNKNOWN_EXTERNAL_MODEL")],
)
def test_a_refused_key_or_an_unknown_model_leaves_the_external_model_out(
    api: Api, model: str, key: str, reason: str
) -> None:
    external = ExternalModel("own", api.endpoint(model, key), "", ExternalLimits(attempts=1))
    with pytest.raises(FailedPrecondition) as refused:
        external.answer(ROWS[0], SamplingDefaults(max_tokens=5))
    assert refused.value.reason == reason


def test_gepa_searches_a_prompt_with_the_base_as_its_reflection_model(api: Api) -> None:
    pytest.importorskip("gepa")
    reflections: list[str] = []

    def reflect(prompt: str) -> str:
        reflections.append(prompt)
        return api.endpoint().complete((("user", prompt[:200]),), SamplingDefaults(max_tokens=12)).text

    task = PromptTask(OwnModels(api.engine, api.endpoint()), SamplingDefaults(max_tokens=5), reflect)
    instructions = gepa_optimizer.optimize(task, "Answer as the house would.", ROWS, 12)
    assert instructions and reflections
    assert "Finding" in reflections[0]
