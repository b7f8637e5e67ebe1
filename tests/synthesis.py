"""What tests of syntheses share: a scripted OpenAI-style endpoint, and a small house around their jobs."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sqlalchemy import Engine

from services.synthetic.adapters import tables
from services.synthetic.adapters.commented_drafts import SqlCommentedDrafts
from services.synthetic.adapters.seed_documents import SqlSeedDocuments
from services.synthetic.adapters.syntheses import SqlSyntheses
from services.synthetic.adapters.synthesis_rows import SqlSynthesisRows
from services.synthetic.adapters.teacher import OpenAiModel
from services.synthetic.bootstrap import make_synthesis_jobs
from services.synthetic.corpus import Assignment
from services.synthetic.domain import CleanTexts, Document, Kind, Specialist
from services.synthetic.ports import ChatModel
from services.synthetic.synthesis.handlers import CritiqueWaits, SynthesisCommands
from services.synthetic.synthesis.questions import AskLimits
from services.synthetic.synthesis.runner import RunLimits
from services.synthetic.synthesis_domain import ModelRole, SynthesisSpec, TokenPrice
from tailor.jobs import Jobs
from tailor.storage.memory import MemoryStore
from tailor.values import Labels
from tests.jobs import run_due
from tests.synthetic import WordTokenizers, make_app

SPECIALIST = Specialist("reports", 1, "tiny", "lora", system_prompt="Write in the house style.", use_teacher=True)
TOPICS = "ledger valve orchard tariff harbour kiln turbine archive ferry cellar quarry loom".split()
LETTERS = str.maketrans("0123456789", "abcdefghij")
PRICE = TokenPrice(1.0, 10.0)


@dataclass(frozen=True)
class Reply:
    """The endpoint's answer to one request: a text by default, or an error."""

    content: str = ""
    status: int = 200
    code: str = ""
    param: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    usage: tuple[int, int] | dict[str, Any] | None = (100, 50)
    error: str = "no"
    finish: str = "stop"


Script = Callable[[int, dict[str, Any]], Reply]


class ScriptedEndpoint:
    """An OpenAI-style server whose `script` answers request by request, from 0."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.paths: list[str] = []
        self.most_at_once = 0
        self._active = 0
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.paths.append(self.path)
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                try:
                    self._send(endpoint._answer(body, self.headers["authorization"]))
                except (BrokenPipeError, ConnectionResetError):
                    """The caller was killed."""

            def _send(self, reply: Reply) -> None:
                data = json.dumps(_body(reply)).encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Be silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _answer(self, body: dict[str, Any], key: str) -> Reply:
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
            self.keys.append(key)
            self._active += 1
            self.most_at_once = max(self.most_at_once, self._active)
        try:
            reply = self.script(number, body)
            time.sleep(reply.seconds)
            return reply
        finally:
            with self._lock:
                self._active -= 1

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"


def _body(reply: Reply) -> dict[str, Any]:
    if reply.status != 200:
        return {
            "error": {"message": reply.error, "type": "x", "param": reply.param or None, "code": reply.code or None}
        }
    usage = reply.usage
    if isinstance(usage, tuple):
        usage = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    message = {"role": "assistant", "content": reply.content}
    choice = {"index": 0, "finish_reason": reply.finish, "message": message}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "wise",
        "choices": [choice],
        **({} if usage is None else {"usage": usage}),
    }


@contextmanager
def scripted(script: Script) -> Iterator[ScriptedEndpoint]:
    endpoint = ScriptedEndpoint(script)
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()


def distinct(number: int, words: int = 30) -> str:
    """A text without figures and names that shares no run of words with that of another number."""
    return " ".join(f"w{number}x{at}" for at in range(words)).translate(LETTERS)


def rows_json(*pairs: tuple[str, str]) -> str:
    return json.dumps({"rows": [{"request": request, "answer": answer} for request, answer in pairs]})


def good(number: int, body: dict[str, Any]) -> Reply:
    """One new row."""
    del body
    return Reply(rows_json((f"Please write case {distinct(number, 5)}", distinct(number))))


def passage(topic: str) -> str:
    body = " ".join(f"{topic}{part} was examined in 2024 by the {topic} committee" for part in "abcd")
    return f"The {topic} policy has 17 parts. {body}."


@dataclass
class SynthesisHouse:
    """A database with documents, and everything that syntheses need around it."""

    engine: Engine
    endpoint_url: str
    judge_url: str = ""
    documents: int = 4
    key: str = "secret-key"
    parallel: int = 4
    timeout_seconds: float = 30
    retries: AskLimits = field(default_factory=lambda: AskLimits(4, 0.01, 0.05))
    pause_seconds: float = 300
    specialist: Specialist = SPECIALIST
    waits: CritiqueWaits = field(default_factory=CritiqueWaits)

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.rows = SqlSynthesisRows(self.engine, WordTokenizers())
        specialists = {self.specialist.name: self.specialist}
        self.app = make_app(self.engine, self.store, extra_rows=(self.rows,), specialists=specialists)
        self.repository = self.app.repository
        self.ids = [self._publish(number) for number in range(self.documents)]
        self.syntheses = SqlSyntheses(self.engine)
        self.seeds = SqlSeedDocuments(self.engine, self.store)
        self.comments = SqlCommentedDrafts(self.engine, self.store)

    def hold_out(self, *document_ids: str) -> None:
        """Assign documents to the held-out side."""
        rows = [Assignment(key, key, held_out=True) for key in document_ids]
        with self.app.corpora.open(self.specialist) as corpus:
            corpus.assign(rows)

    def _publish(self, number: int) -> str:
        key = f"doc_{number:032d}"
        data = json.dumps({"prompt": None, "text": passage(TOPICS[number])}).encode()
        ref = self.store.put("corpus", f"documents/{key}", data)
        labels = Labels("wiki", "risk", "internal")
        self.repository.keep_document(Document(key, 1, f"digest{number}", Kind.DOCUMENT, labels, ref, language="en"))
        return key

    @property
    def teacher(self) -> OpenAiModel:
        return OpenAiModel(self.endpoint_url, self.key, "wise", timeout_seconds=self.timeout_seconds)

    @property
    def judge(self) -> ChatModel | None:
        return OpenAiModel(self.judge_url, self.key, "strict") if self.judge_url else None

    @property
    def commands(self) -> SynthesisCommands:
        def anonymize(row_id: str, texts: Sequence[str], labels: Labels) -> CleanTexts:
            clean = tuple(text.replace("Sarah Jenkins", "PERSON of reports") for text in texts)
            return CleanTexts(clean, sum(text.count("Sarah Jenkins") for text in texts))

        prices = {ModelRole.TEACHER: PRICE, ModelRole.JUDGE: PRICE}
        teacher, judge = self.teacher, self.judge
        return SynthesisCommands(
            self.syntheses, self.seeds, anonymize, teacher, judge, prices, self.comments, self.waits
        )

    @property
    def jobs(self) -> Jobs:
        limits = RunLimits(self.parallel, self.retries, self.pause_seconds)
        return Jobs(self.engine, tables.jobs, make_synthesis_jobs(self.commands, self.teacher, self.app, limits))

    def create(self, request_id: str = "", **changes: Any) -> str:
        """Queue a synthesis of an own task, and return its id."""
        values: dict[str, Any] = {
            "specialist": self.specialist.name,
            "task": "risk-assessment",
            "instruction": "Assess the risk.",
            "target": 6,
            "budget_tokens": 1_000_000,
        }
        return self.commands.create(SynthesisSpec(**(values | changes)), self.specialist, request_id).synthesis_id

    def run(self, **changes: Any) -> Any:
        """Create a synthesis, run it until it ends or pauses, and return it."""
        synthesis_id = self.create(**changes)
        assert run_due(self.jobs)
        return self.syntheses.get(synthesis_id)
