"""A console over services in memory, and a browser that is signed in to it."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from fastapi.testclient import TestClient
from pydantic import SecretStr

from services.console.domain import Role, Visitor
from services.console.ports import Services
from services.console.settings import Settings
from services.console.web.app import create_app
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.errors import FailedPrecondition, NotFound, Reason, Unavailable
from tests.unit.console.fake_models import FakeEvaluation, FakeInference, FakeRunCommands, FakeTraining
from tests.unit.console.fake_registry import FakeRegistry
from tests.unit.console.fake_rows import FakeBuilds, FakeRows, FakeSyntheses
from tests.unit.console.judging_fakes import FakeDraws, FakeJudgingQueue
from tests.unit.console.messages import KEY
from tests.unit.console.panel_fakes import FakePanelReader
from tests.unit.console.people_fakes import FakePeople
from tests.unit.console.review_fakes import FakePassageReview

PASSWORD = "correct horse battery"


@dataclass
class World:
    """A console over services in memory."""

    registry: FakeRegistry = field(default_factory=FakeRegistry)
    training: FakeTraining = field(default_factory=FakeTraining)
    evaluation: FakeEvaluation = field(default_factory=FakeEvaluation)
    inference: FakeInference = field(default_factory=FakeInference)
    syntheses: FakeSyntheses = field(default_factory=FakeSyntheses)
    rows: FakeRows = field(default_factory=FakeRows)
    builds: FakeBuilds = field(default_factory=FakeBuilds)
    review: FakePassageReview = field(default_factory=FakePassageReview)
    judging: FakeJudgingQueue = field(default_factory=FakeJudgingQueue)
    draws: FakeDraws = field(default_factory=FakeDraws)
    panel: FakePanelReader = field(default_factory=FakePanelReader)
    near: synthetic_pb2.CountNearDuplicatesResponse | None = field(
        default_factory=lambda: synthetic_pb2.CountNearDuplicatesResponse(
            documents=100, compared=100, near_duplicates=7, groups=3, threshold=0.8
        )
    )
    unhealthy: set[str] = field(default_factory=set)
    submissions: dict[str, list[ingestion_pb2.Submission]] = field(default_factory=dict)
    asked_submissions: list[tuple[str, str]] = field(default_factory=list)
    replays: list[tuple[str, str]] = field(default_factory=list)
    replay_runs: bool = False

    def __post_init__(self) -> None:
        self.runs = FakeRunCommands(self.training)
        self.people = FakePeople(self.registry)

    def count_near_duplicates(self, specialist: str) -> synthetic_pb2.CountNearDuplicatesResponse:
        if self.near is None:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")
        return self.near

    def get_submission(self, external_id: str, key_id: str) -> ingestion_pb2.GetSubmissionResponse:
        self.asked_submissions.append((external_id, key_id))
        if external_id not in self.submissions:
            raise NotFound(Reason.UNKNOWN_DOCUMENT, "Nothing was published under this id.")
        return ingestion_pb2.GetSubmissionResponse(submissions=self.submissions[external_id])

    def start_replay(self, barrier_digest: str, key_id: str) -> None:
        if self.replay_runs:
            raise FailedPrecondition(Reason.REPLAY_RUNNING, "Another replay runs.")
        self.replays.append((barrier_digest, key_id))

    def services(self) -> Services:
        return Services(
            catalogue=self.registry,
            decisions=self.registry,
            operations=self.registry,
            keys=self.registry,
            people=self.people,
            sessions=self.people,
            training=self.training,
            runs=self.runs,
            builds=self.builds,
            inference=self.inference,
            syntheses=self.syntheses,
            rows=self.rows,
            review=self.review,
            judging=self.judging,
            draws=self.draws,
            panel=self.panel,
            get_evaluation=self.evaluation.get,
            evaluate=self.evaluation.evaluate,
            compare_evaluations=self.evaluation.compare,
            count_near_duplicates=self.count_near_duplicates,
            is_healthy=lambda service: service not in self.unhealthy,
            start_replay=self.start_replay,
            get_submission=self.get_submission,
        )

    def browser(self, base_url: str = "http://testserver") -> TestClient:
        app = create_app(settings(), self.services())
        return TestClient(app, base_url=base_url, follow_redirects=False, raise_server_exceptions=False)

    def key(self, role: Role, *specialists: str) -> str:
        """The secret of a new API key."""
        secret = f"tlr_{role.value}_{len(self.registry.visitors)}"
        digest = hashlib.sha256(secret.encode()).hexdigest()
        self.registry.visitors[digest] = Visitor(f"{role.value} key", role, frozenset(specialists), KEY)
        return secret

    def signed_in(self, role: Role = Role.OPERATOR, *specialists: str) -> TestClient:
        """A browser that is signed in with this role."""
        browser = self.browser()
        sign_in(browser, self.key(role, *specialists))
        return browser


def settings() -> Settings:
    return Settings(
        password=SecretStr(PASSWORD),
        session_secret=SecretStr("s" * 40),
        identity_key_file=Path("none"),
        trust_file=Path("none"),
    )


def csrf(browser: TestClient | httpx.Client, path: str = "/login") -> str:
    """The CSRF token of a page's forms."""
    match = re.search(r'data-csrf="([^"]+)"', browser.get(path).text)
    assert match
    return match.group(1)


def sign_in(browser: TestClient | httpx.Client, secret: str) -> None:
    """Sign in, and send the session's CSRF token with every later request."""
    answer = browser.post("/login", data={"secret": secret, "csrf": csrf(browser)})
    assert answer.status_code == 303, answer.text
    browser.headers["x-csrf-token"] = csrf(browser)
