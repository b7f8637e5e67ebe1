"""Services that live in memory, and a browser that is signed in to them."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from fastapi.testclient import TestClient
from pydantic import SecretStr

from services.console.audits import Audit, Bin, Dimension, Estimate, Found, Group, NearDuplicates, Rejected
from services.console.domain import Judgement, KeyTerms, Question, Role, Services, Visitor
from services.console.runs import Plan, Price, Progress, Report, Run, Stage, Watched
from services.console.settings import Settings
from services.console.views import (
    Adapter,
    Dataset,
    Document,
    Draft,
    Erasure,
    Evaluated,
    Evaluation,
    Flow,
    KeptText,
    Key,
    Labels,
    NewKey,
    Page,
    Piece,
    Rejection,
    Replica,
    Served,
    Serving,
    Specialist,
    Threshold,
    Trace,
)
from services.console.web.app import create_app
from tailor.errors import Aborted, NotFound, Reason, TailorError, Unavailable

T = TypeVar("T")

PASSWORD = "correct horse battery"
NAME = "engagement-reports"
ADAPTER = "a" * 64
OLD_ADAPTER = "b" * 64
DATASET = "d" * 64
PREFERENCES = "e" * 64
RUN = "run_" + "1" * 32
DRAFT = "drf_" + "2" * 32
BASE_DRAFT = "drf_" + "3" * 32
NOW = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
NEW_KEY = "key_" + "9" * 16
SECRET = "tlr_shown-this-once"
LABELS = Labels("sharepoint", "risk", "internal")


class ListStream:
    """A stream of given items; an error at the end where one is given."""

    def __init__(self, items: Sequence[T], error: TailorError | None = None) -> None:
        self.items = items
        self.error = error
        self.closed = False

    def __iter__(self) -> Iterator[T]:
        yield from self.items
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed = True


def document(number: int = 1) -> Document:
    return Document(
        f"doc_{number:032x}", number, "document", LABELS, "pdf", 4200 + number, {"PERSON": 3, "EMAIL_ADDRESS": 1}, NOW
    )


def rejection(reason: str = "CORRUPT", hint: str = "Publish the file again, whole.") -> Rejection:
    return Rejection("doc_" + "f" * 32, "ingestion", reason, hint, "", LABELS, "pdf", NOW)


def evaluated(**incumbent: float) -> Evaluated:
    return Evaluated(
        evaluation_id="evl_1",
        adapter_digest=ADAPTER,
        dataset_digest=DATASET,
        base={"rouge1": 0.21, "rougeL": 0.12, "bleu": 2.4, "house_terms_f1": 0.05, "perplexity": 24.2},
        candidate={"rouge1": 0.34, "rougeL": 0.23, "bleu": 9.8, "house_terms_f1": 0.47, "perplexity": 9.6},
        incumbent=incumbent,
        incumbent_digest=OLD_ADAPTER if incumbent else "",
        incumbent_generation=1 if incumbent else 0,
        rows=48,
        create_time=NOW,
    )


def adapter(digest: str = ADAPTER, specialist: str = NAME, **known: object) -> Adapter:
    values: dict[str, object] = {
        "steps": 120,
        "first_loss": 3.16,
        "last_loss": 2.41,
        "tokens_per_second": 290.0,
        "seconds": 171.0,
        "create_time": NOW,
        "evaluation": evaluated(),
        "decision": "passed",
    }
    return Adapter(digest, "policy", specialist, RUN, DATASET, "smollm2-135m-instruct", **(values | known))  # type: ignore[arg-type]


def dataset(specialist: str = NAME) -> Dataset:
    return Dataset(DATASET, specialist, "sft", 432, 48, "smollm2-135m-instruct", "sft-lora", 118, NOW)


def progress(step: int = 40) -> Progress:
    return Progress("training", step, 120, 3.16 - step * 0.006, 2e-4, 0.9, 288.4, (120 - step) * 1.4)


def run(state: str = "running", specialist: str = NAME, step: int = 40) -> Run:
    return Run(
        run_id=RUN,
        specialist=specialist,
        dataset_digest=DATASET,
        base="smollm2-135m-instruct",
        recipe="sft-lora",
        state=state,
        progress=progress(step),
        epoch=1,
        first_loss=3.16,
        create_time=NOW,
        start_time=NOW,
        stages=(Stage("sft-lora", "sft", DATASET),),
        plan=plan(),
    )


def plan() -> Plan:
    price = Price("EUR", 0.35, 0.10, 0.05, 0.20)
    return Plan(432, 39_000, 120, 2**31, 2**34, "2 CPU cores", 360.0, "measured", price, create_time=NOW)


def report() -> Report:
    price = Price("EUR", 0.40, 0.15, 0.05, 0.20)
    return Report(432, 40_000, 120, 2**30, 400.0, price, memory_error=1.0, seconds_error=-0.1, tokens_error=-0.025)


def staged(state: str = "queued") -> Run:
    """A run of three stages that is in its second one."""
    stages = (
        Stage("sft-lora", "sft", DATASET, "", ADAPTER, "policy"),
        Stage("reward", "reward", PREFERENCES),
        Stage("rloo", "rloo", PREFERENCES),
    )
    waits = "Waits for one of 1 places."
    return replace(
        run(state), stages=stages, stage=1, reason="WAITS_FOR_PLACE", message=waits, parent_digest=OLD_ADAPTER
    )


def specialist(name: str = NAME, generation: int = 1, description: str = "Writes engagement reports.") -> Specialist:
    serving = Serving(generation, OLD_ADAPTER, "", NOW, (Replica("inference-0", True),), finished=True)
    return Specialist(
        name=name,
        revision=2,
        description=description,
        base="smollm2-135m-instruct",
        recipe="sft-lora",
        selection={"source": ("sharepoint",), "department": (), "confidentiality": ("internal", "public")},
        min_new_items=20,
        quiet_seconds=15,
        min_interval_seconds=60,
        thresholds=(Threshold("rougeL", 0.02, 0.01), Threshold("perplexity", 1.0, 0.5)),
        min_rows=30,
        house_terms=24,
        update_time=NOW,
        serving=serving if generation else Serving(),
    )


def draft(draft_id: str = DRAFT, specialist: str = NAME) -> Draft:
    return Draft(
        draft_id, specialist, 1 if specialist else 0, ADAPTER, DATASET, "base", 40, 120, "stop", 0.3, 5.1, "", NOW
    )


@dataclass
class FakeRegistry:
    """The registry."""

    flow_counts: Flow = field(
        default_factory=lambda: Flow(131, 128, {"DUPLICATE": 4, "CORRUPT": 1}, {"PERSON": 1210, "EMAIL_ADDRESS": 301})
    )
    document_items: list[Document | Rejection] = field(default_factory=lambda: [document(1), document(2), rejection()])
    dataset_items: list[Dataset] = field(default_factory=lambda: [dataset()])
    adapter_items: list[Adapter] = field(default_factory=lambda: [adapter()])
    specialist_items: list[Specialist] = field(default_factory=lambda: [specialist()])
    key_items: list[Key] = field(
        default_factory=lambda: [Key("key_0011223344556677", "CI publisher", "engineer", (), False, NOW)]
    )
    erasure_items: list[Erasure] = field(
        default_factory=lambda: [
            Erasure("ers_" + "1" * 32, ("doc_" + "1" * 32,), (), "court-order", ("inference", "training"), "", "", NOW),
            Erasure("ers_" + "2" * 32, ("doc_" + "2" * 32,), (), "tombstone", (), '{"documents": 1}', "ab12", NOW),
        ]
    )
    traces: dict[str, Trace] = field(
        default_factory=lambda: {
            DRAFT: Trace(draft(), adapter(), dataset(), (document(1), document(2)), evaluated()),
            BASE_DRAFT: Trace(draft(BASE_DRAFT, "")),
        }
    )
    visitors: dict[str, Visitor] = field(default_factory=dict)
    page_size: int = 100
    down: bool = False
    promoted: list[tuple[str, str, int]] = field(default_factory=list)
    rolled_back: list[tuple[str, int]] = field(default_factory=list)
    tried_out: list[tuple[str, str, int]] = field(default_factory=list)
    stopped: list[tuple[str, int]] = field(default_factory=list)
    judgements: dict[str, Judgement] = field(default_factory=dict)
    made: list[KeyTerms] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)

    def _answer(self) -> None:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "registry does not answer.")

    def _page(self, items: list[T], token: str, size: int | None = None) -> Page[T]:
        self._answer()
        start, size = int(token or 0), size or self.page_size
        more = start + size < len(items)
        return Page(tuple(items[start : start + size]), str(start + size) if more else "")

    def flow(self) -> Flow:
        self._answer()
        return self.flow_counts

    def documents(self, token: str, specialist: str, size: int) -> Page[Document | Rejection]:
        return self._page(self.document_items, token, min(size, self.page_size))

    def datasets(self, token: str) -> Page[Dataset]:
        return self._page(self.dataset_items, token)

    def adapters(self, token: str) -> Page[Adapter]:
        return self._page(self.adapter_items, token)

    def specialists(self, token: str) -> Page[Specialist]:
        return self._page(self.specialist_items, token)

    def _generation(self, name: str) -> int:
        self._answer()
        return next(item.serving.generation for item in self.specialist_items if item.name == name)

    def promote(self, specialist: str, adapter_digest: str, expected_generation: int) -> Serving:
        if expected_generation != self._generation(specialist):
            raise Aborted(Reason.GENERATION_MOVED, "Somebody else decided first; look again.")
        self.promoted.append((specialist, adapter_digest, expected_generation))
        return Serving(expected_generation + 1, adapter_digest)

    def roll_back(self, specialist: str, expected_generation: int) -> Serving:
        if expected_generation != self._generation(specialist):
            raise Aborted(Reason.GENERATION_MOVED, "Somebody else decided first; look again.")
        self.rolled_back.append((specialist, expected_generation))
        return Serving(expected_generation + 1)

    def start_canary(self, specialist: str, adapter_digest: str, expected_generation: int) -> Serving:
        if expected_generation != self._generation(specialist):
            raise Aborted(Reason.GENERATION_MOVED, "Somebody else decided first; look again.")
        self.tried_out.append((specialist, adapter_digest, expected_generation))
        return Serving(expected_generation + 1)

    def stop_canary(self, specialist: str, expected_generation: int) -> Serving:
        if expected_generation != self._generation(specialist):
            raise Aborted(Reason.GENERATION_MOVED, "Somebody else decided first; look again.")
        self.stopped.append((specialist, expected_generation))
        return Serving(expected_generation + 1)

    def trace(self, draft_id: str) -> Trace:
        self._answer()
        if draft_id not in self.traces:
            raise NotFound(Reason.UNKNOWN_DRAFT, "There is no such draft.")
        return self.traces[draft_id]

    def record_judgement(self, judgement: Judgement, request_id: str) -> str:
        self._answer()
        self.judgements[request_id] = judgement
        return "jdg_" + "4" * 32

    def keys(self, token: str) -> Page[Key]:
        return self._page(self.key_items, token)

    def create_key(self, terms: KeyTerms) -> NewKey:
        self._answer()
        self.made.append(terms)
        key = Key(NEW_KEY, terms.name, terms.role.value, terms.specialists, False, NOW, None, terms.methods)
        self.key_items.insert(0, key)
        return NewKey(key, SECRET)

    def revoke_key(self, key_id: str) -> None:
        self._answer()
        if key_id not in {key.key_id for key in self.key_items}:
            raise NotFound(Reason.UNKNOWN_KEY, "There is no such key.")
        self.revoked.append(key_id)

    def erasures(self, token: str) -> Page[Erasure]:
        return self._page(self.erasure_items, token)

    def verify_key(self, secret_sha256: str) -> Visitor:
        self._answer()
        if secret_sha256 not in self.visitors:
            raise NotFound(Reason.UNKNOWN_KEY, "There is no such key.")
        return self.visitors[secret_sha256]


@dataclass
class FakeTraining:
    """Training."""

    items: list[Run] = field(default_factory=lambda: [run()])
    reports: list[Watched] = field(default_factory=lambda: [Watched(run(step=step)) for step in range(1, 4)])
    down: bool = False

    def runs(self, token: str) -> Page[Run]:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "training does not answer.")
        return Page(tuple(self.items))

    def run(self, run_id: str) -> Run:
        found = [item for item in self.runs("").items if item.run_id == run_id]
        if not found:
            raise NotFound(Reason.UNKNOWN_RUN, "There is no such run.")
        return found[0]

    def watch(self, run_id: str) -> ListStream:
        return ListStream(self.reports)


@dataclass
class FakeEvaluation:
    """Evaluation."""

    answers: dict[str, Evaluation] = field(
        default_factory=lambda: {
            ADAPTER: Evaluation("evl_1", "succeeded", 96, 96, "", evaluated(), "# Report\n\nAll well.", b"\x89PNG fake")
        }
    )
    down: bool = False

    def evaluation(self, adapter_digest: str) -> Evaluation:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "evaluation does not answer.")
        if adapter_digest not in self.answers:
            raise NotFound(Reason.UNKNOWN_EVALUATION, "There is no such evaluation.")
        return self.answers[adapter_digest]


@dataclass
class FakeInference:
    """Inference."""

    names: tuple[str, ...] = ("base", NAME)
    error: TailorError | None = None
    down: bool = False
    asked: list[Question] = field(default_factory=list)
    streams: list[ListStream] = field(default_factory=list)
    texts: dict[str, KeptText] = field(default_factory=dict)

    def specialists(self) -> tuple[Served, ...]:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "inference does not answer.")
        return tuple(Served(name, 1, ADAPTER, "smollm2", 2048) for name in self.names)

    def draft(self, draft_id: str) -> KeptText:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "inference does not answer.")
        return self.texts.get(draft_id, KeptText("not kept"))

    def ask(self, question: Question) -> ListStream:
        self.asked.append(question)
        draft_id = BASE_DRAFT if question.model == "base" else DRAFT
        pieces = [Piece(draft_id, "The findings "), Piece(draft_id, "follow.", "stop", 12, 4, 1, ADAPTER, "smollm2")]
        stream = ListStream(pieces, self.error)
        self.streams.append(stream)
        return stream


def audited() -> Audit:
    groups = (Group("sharepoint", 90, 90_000, 180), Group("", 10, 10_000, 0))
    return Audit(
        documents=100,
        characters=100_000,
        findings=180,
        dimensions=(Dimension("source", groups, 3), Dimension("language", (Group("en", 100, 100_000, 180),))),
        min_chars=20,
        max_chars=9_000,
        mean_chars=1_000.0,
        percentiles={5: 40.0, 50: 900.0, 99: 8_000.0},
        histogram=(Bin(0, 250, 30), Bin(250, 500, 0), Bin(500, 1_000, 70)),
        types=(Found("PERSON", 150, 80, 1.5), Found("EMAIL_ADDRESS", 30, 12, 0.3)),
        rejected=(Rejected("DUPLICATE", "pdf", "ingestion", 4), Rejected("CORRUPT", "", "ingestion", 1)),
        duplicates=4,
        estimate=Estimate(25_000, 250.0, RUN, 100.0),
        create_time=NOW,
    )


@dataclass
class FakeAuditing:
    """Registry and synthetic, as far as they count."""

    counts: Audit = field(default_factory=audited)
    near: NearDuplicates = field(default_factory=lambda: NearDuplicates(100, 100, 7, 3, 0.8))
    down: bool = False
    asked: list[str] = field(default_factory=list)

    def audit(self, specialist: str) -> Audit:
        self.asked.append(specialist)
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
        return self.counts

    def near_duplicates(self, specialist: str) -> NearDuplicates:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")
        return self.near


@dataclass
class FakeHealth:
    """Health of the services."""

    down: set[str] = field(default_factory=set)

    def check(self, service: str) -> bool:
        return service not in self.down


@dataclass
class World:
    """A console over services in memory."""

    registry: FakeRegistry = field(default_factory=FakeRegistry)
    training: FakeTraining = field(default_factory=FakeTraining)
    evaluation: FakeEvaluation = field(default_factory=FakeEvaluation)
    inference: FakeInference = field(default_factory=FakeInference)
    health: FakeHealth = field(default_factory=FakeHealth)
    auditing: FakeAuditing = field(default_factory=FakeAuditing)

    def services(self) -> Services:
        return Services(self.registry, self.training, self.evaluation, self.inference, self.health, self.auditing)

    def browser(self, base_url: str = "http://testserver") -> TestClient:
        app = create_app(settings(), self.services())
        return TestClient(app, base_url=base_url, follow_redirects=False, raise_server_exceptions=False)

    def key(self, role: Role, *specialists: str) -> str:
        """The secret of a new API key."""
        secret = f"tlr_{role.value}_{len(self.registry.visitors)}"
        digest = hashlib.sha256(secret.encode()).hexdigest()
        self.registry.visitors[digest] = Visitor(
            f"{role.value} key", role, frozenset(specialists), "key_0011223344556677", digest
        )
        return secret

    def signed_in(self, role: Role = Role.OPERATOR, *specialists: str) -> TestClient:
        """A browser of somebody with this role."""
        browser = self.browser()
        sign_in(browser, self.key(role, *specialists))
        return browser


def settings() -> Settings:
    """Settings that are read from nowhere."""
    return Settings(
        password=SecretStr(PASSWORD),
        session_secret=SecretStr("s" * 40),
        identity_key_file=Path("none"),
        trust_file=Path("none"),
    )


def csrf(browser: TestClient, path: str = "/login") -> str:
    """The token in a page's forms."""
    found = re.search(r'data-csrf="([^"]+)"', browser.get(path).text)
    assert found
    return found.group(1)


def sign_in(browser: TestClient, secret: str) -> None:
    """Sign in, and send the session's token with every later request."""
    answer = browser.post("/login", data={"secret": secret, "csrf": csrf(browser)})
    assert answer.status_code == 303, answer.text
    browser.headers["x-csrf-token"] = csrf(browser)
