"""What goes on while a stack is struck: documents, tombstones, calls, rankings and runs of one specialist, with the means of a client.

Everything that is sent is written down in a History. Commands are repeated until they are confirmed, as a careful client does.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from random import Random
from typing import TypeVar

from bench.chaos_check import ChaosCall, History, SentDocument, SentRanking
from bench.chaos_faults import Points
from tailor.api.anonymization.v1 import anonymization_pb2
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import pages
from tailor.cli.connections import Connections
from tailor.cli.producer import KafkaRecordProducer
from tailor.cli.reader import Start, TopicReader
from tailor.cli.records import JSON_TYPE, SUBMITTED, Record, to_tombstone
from tailor.client import Answer, TailorClient
from tailor.client.requests import Options
from tailor.errors import DeadlineExceeded, FailedPrecondition, NotFound, Reason, TailorError, Unavailable
from tailor.events.topics import load_topics

T = TypeVar("T")

SPECIALIST = models_pb2.SpecialistChanged(
    name="chaos-reports",
    base="tiny",
    recipe="tiny",
    stages=["sft", "dpo"],
    recipes={"dpo": "tiny-dpo"},
    keep_drafts=True,
    selection=models_pb2.Selection(sources=["chaos"]),
    sampling=models_pb2.SamplingDefaults(max_tokens=16),
    evaluation=models_pb2.EvaluationPolicy(max_rows=6, max_answers=3, max_suite_items=2),
    gate=models_pb2.Gate(
        beat=["base"],
        primary=models_pb2.PrimaryMetric(metric="perplexity", min_gain=-1e9, min_gain_over_incumbent=-1e9),
    ),
)
# Joined, they make a word that occurs in no other document and in no list of names.
WORDS = (
    "amber anchor barley basket beacon bridge candle canvas cedar cinder copper cotton ember feather granite harvest hollow "
    "iron juniper kettle lantern ledger linen maple marble meadow mortar nickel orchard pebble pepper quarry ribbon saddle "
    "silver spindle thistle timber velvet walnut"
).split()
MAIL = "ingeborg.vantongeren@harbourlight.example"
PROMPTS = ("Write a memo.", "State the remedy.", "Name the next step.")
FIRST_DOCUMENTS = 24
RETRY_SECONDS, WAIT_SECONDS = 0.5, 2.0
CALL_SECONDS = 60.0
# How long a command may go on after the last fault.
GRACE_SECONDS = 180.0
PREPARE_SECONDS = 600.0
RUN_SECONDS = 240.0
TEXT_SECONDS = 40.0


class Traffic:
    """The load of one history. Its content follows from the seed; how much of it there is, from time."""

    def __init__(self, connections: Connections, paragraphs: Sequence[str], points: Points, seed: int) -> None:
        self.history = History()
        self._connections = connections
        self._paragraphs = paragraphs
        self._points = points
        self._seed = seed
        self._stop = threading.Event()
        self._deadline = 0.0
        self._producer: KafkaRecordProducer | None = None
        self._random = Random(f"{seed} documents")
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), daemon=True)
            for work in (self._publish, self._call, self._rank, self._train, self._watch)
        ]

    def prepare(self) -> None:
        """Define the specialist, publish its first documents, train and promote its first adapter. Raises SystemExit if that fails."""
        self._deadline = time.monotonic() + PREPARE_SECONDS
        request = registry_pb2.CreateSpecialistRequest(specialist=SPECIALIST)
        self._repeat("create the specialist", lambda: self._registry.CreateSpecialist(request))
        for number in range(FIRST_DOCUMENTS):
            self._send(self.add_document(number, "chaos"))
        self._wait(lambda: self._count_passed() >= FIRST_DOCUMENTS)
        self._train_once(0)
        if self.history.unfinished or not self._is_served():
            raise SystemExit(
                f"the history could not begin: {', '.join(self.history.unfinished) or 'no adapter serves'}"
            )
        self._deadline = float("inf")

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the commands under way, and publish every withdrawn document once more."""
        self._deadline = time.monotonic() + GRACE_SECONDS
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._deadline = time.monotonic() + GRACE_SECONDS
        withdrawn = [document for document in self.history.documents.values() if document.withdrawn]
        # A document that is published again before every service has forgotten it is accepted and then erased with the others.
        self._wait(lambda: self._count_receipts() >= len(withdrawn))
        for document in withdrawn:
            self._send(document, Random(document.marker))

    def count_pairs(self) -> int:
        """The pairs that a preference dataset is made of. Builds it, which starts a run, if there are enough of them."""
        request = synthetic_pb2.BuildDatasetRequest(
            specialist=SPECIALIST.name, kind=models_pb2.DATASET_KIND_PREFERENCE, request_id=f"pairs-{self._seed}"
        )
        try:
            return self._connections.synthetic.BuildDataset(request, timeout=CALL_SECONDS).pairs.pairs
        except FailedPrecondition as error:
            return int(error.metadata.get("pairs", "0"))

    def add_document(self, number: int, source: str) -> SentDocument:
        """Write down a document that is going to be sent, with a marker that no other has."""
        used = {known.marker for known in self.history.documents.values()}
        while (marker := "".join(self._random.sample(WORDS, 3))) in used:
            pass
        document = SentDocument(f"{source}-{number}", marker)
        self.history.documents[document.external_id] = document
        return document

    # What runs in threads.

    def _publish(self) -> None:
        """New documents, new versions, the same text again, and tombstones."""
        for number in count(FIRST_DOCUMENTS):
            if self._stop.wait(self._random.uniform(0.2, 1.5)):
                return
            known = [item for item in self.history.documents.values() if not item.withdrawn]
            if number % 6 == 5:
                self._withdraw(self._random.choice(known[FIRST_DOCUMENTS:] or known))
            elif number % 5 == 4:
                document = self._random.choice(known)
                for _ in range(number % 2 + 1):
                    self._send(document, Random(f"{document.marker} {number}"))
            else:
                self._send(self.add_document(number, "chaos" if number % 4 == 0 else "elsewhere"))

    def _call(self) -> None:
        random = Random(f"{self._seed} calls")
        with self._connections.client() as client:
            calls: list[Callable[[], ChaosCall]] = [
                lambda: self._generate(client, "base", random.choice(PROMPTS)),
                lambda: self._generate(client, SPECIALIST.name, random.choice(PROMPTS)),
                lambda: self._stream(client, random.choice(PROMPTS)),
                self._anonymize,
                self._look_up,
            ]
            while not self._stop.wait(0.3):
                self._points.mark("call.sent")
                self.history.calls.append(random.choice(calls)())

    def _rank(self) -> None:
        with self._connections.client() as client:
            for number in count():
                if self._stop.wait(1.0):
                    return
                with suppress(TailorError):
                    self._rank_once(client, number)

    def _train(self) -> None:
        for number in count(1):
            if self._stop.wait(WAIT_SECONDS):
                return
            self._train_once(number)

    def _watch(self) -> None:
        """Mark the facts that pass on the log."""
        topics = [name for name, topic in load_topics().items() if not topic.raw_zone]
        while not self._stop.wait(RETRY_SECONDS):
            with suppress(TailorError), TopicReader(self._connections.kafka_reader(), topics, Start.END) as reader:
                while not self._stop.is_set():
                    for record in reader.poll():
                        self._points.mark(reader.topic(record))

    # One of each.

    def _send(self, document: SentDocument, random: Random | None = None) -> None:
        random = random or self._random
        chosen = random.sample(self._paragraphs, 3)
        text = f"# Note on the {document.marker}\n\nThe {document.marker} is counted in week {random.randrange(1, 53)}.\n\n"
        source = document.external_id.rpartition("-")[0]
        content = {
            "document_id": document.external_id,
            "text": text + "\n\n".join(chosen),
            "labels": {"source": source},
        }
        record = Record(SUBMITTED, document.external_id, json.dumps(content).encode(), {"content-type": JSON_TYPE})

        def send() -> None:
            document.sent += 1
            self._send_once(record)
            document.acknowledged += 1

        self._points.mark("document.sent")
        self._repeat(f"publish {document.external_id}", send)

    def _withdraw(self, document: SentDocument) -> None:
        document.withdrawn = True
        self._points.mark("tombstone.sent")
        self._repeat(f"withdraw {document.external_id}", lambda: self._send_once(to_tombstone(document.external_id)))

    def _send_once(self, record: Record) -> None:
        """Send a record and wait for the broker; a producer that failed is not used again."""
        try:
            self._producer = self._producer or KafkaRecordProducer(self._connections.kafka_publisher)
            self._producer.send(record)()
        except TailorError:
            failed, self._producer = self._producer, None
            if failed is not None:
                with suppress(Exception):
                    failed.close()
            raise

    def _generate(self, client: TailorClient, model: str, prompt: str) -> ChaosCall:
        call = ChaosCall(f"generate {model}: {prompt}")
        return _answer(call, lambda: client.generate(model, prompt, temperature=0, timeout_seconds=CALL_SECONDS))

    def _sample(self, client: TailorClient, prompt: str, seed: int) -> ChaosCall:
        options: Options = {"temperature": 1.5, "seed": seed, "timeout_seconds": CALL_SECONDS}
        return _answer(
            ChaosCall(f"sample {seed}: {prompt}"), lambda: client.generate(SPECIALIST.name, prompt, **options)
        )

    def _stream(self, client: TailorClient, prompt: str) -> ChaosCall:
        def ask() -> Answer:
            pieces = list(client.stream(SPECIALIST.name, prompt, temperature=0, timeout_seconds=CALL_SECONDS))
            last = pieces[-1]
            assert last.usage is not None and last.provenance is not None
            text = "".join(piece.text for piece in pieces)
            return Answer(text, last.draft_id, last.finish_reason, last.usage, last.provenance)

        # The same question as without a stream.
        return _answer(ChaosCall(f"generate {SPECIALIST.name}: {prompt}"), ask)

    def _anonymize(self) -> ChaosCall:
        request = anonymization_pb2.AnonymizeRequest(text=f"Send the ledger to {MAIL} on Monday.")
        anonymize = self._connections.anonymization.Anonymize
        call, text = _attempt(ChaosCall("anonymize"), lambda: anonymize(request, timeout=CALL_SECONDS).text)
        passes = text is not None and (MAIL in text or "ledger" not in text)
        return replace(call, fault="personal data came back, or the text did not") if passes else call

    def _look_up(self) -> ChaosCall:
        request = registry_pb2.GetSpecialistRequest(name=SPECIALIST.name)
        call, response = _attempt(
            ChaosCall("look up"), lambda: self._registry.GetSpecialist(request, timeout=CALL_SECONDS)
        )
        is_wrong = response is not None and response.specialist.selection != SPECIALIST.selection
        return replace(call, fault="another definition came back") if is_wrong else call

    def _rank_once(self, client: TailorClient, number: int) -> None:
        """Compare two samples whose texts differ and are stored, so that the ranking gives one pair."""
        prompt = f"Write memo {self._seed} {number}."
        answers = [self._sample(client, prompt, seed) for seed in (1, 2)]
        self.history.calls += answers
        if not all(answer.draft_id for answer in answers) or len({answer.answer.strip() for answer in answers}) < 2:
            return
        ids = tuple(answer.draft_id for answer in answers)
        if not all(self._is_kept(client, draft_id) for draft_id in ids):
            return
        request = registry_pb2.RecordJudgementRequest(
            ranking=ids, rubric=drafts_pb2.Rubric(style=4), request_id=f"ranking-{self._seed}-{number}"
        )

        def record() -> str:
            return self._registry.RecordJudgement(request, timeout=CALL_SECONDS).judgement.judgement_id

        self._points.mark("ranking.sent")
        # A client that heard nothing sends it again; so does this one, every other time.
        first, second = (self._repeat(request.request_id, record) for _ in range(2))
        if first and second:
            self.history.rankings.append(SentRanking(request.request_id, frozenset((first, second)), ids))

    def _is_kept(self, client: TailorClient, draft_id: str) -> bool:
        deadline = time.monotonic() + TEXT_SECONDS
        while time.monotonic() < deadline:
            with suppress(NotFound, Unavailable, DeadlineExceeded):
                if client.draft(draft_id).text == "kept":
                    return True
            time.sleep(RETRY_SECONDS)
        return False

    def _train_once(self, number: int) -> None:
        """Build a dataset of what is new, and wait until its run has ended."""
        request = synthetic_pb2.BuildDatasetRequest(
            specialist=SPECIALIST.name, request_id=f"build-{self._seed}-{number}"
        )
        build = self._connections.synthetic.BuildDataset
        built = self._repeat("build a dataset", lambda: build(request, timeout=120.0))
        if built is None:
            return

        def ended() -> bool:
            listed = training_pb2.ListRunsRequest(specialist=SPECIALIST.name)
            runs = list(pages(self._connections.training.ListRuns, listed))
            mine = [run for run in runs if run.dataset_digest == built.dataset.digest]
            return bool(mine) and all(run.state > training_pb2.RUN_STATE_RUNNING for run in mine)

        # A dataset whose document is erased at this moment is superseded and never trained on.
        self._wait(ended, RUN_SECONDS)
        self._wait(self._is_served, RUN_SECONDS)

    def _is_served(self) -> bool:
        request = registry_pb2.GetSpecialistRequest(name=SPECIALIST.name)
        return bool(self._registry.GetSpecialist(request).serving.decision.adapter_digest)

    def _count_passed(self) -> int:
        return self._registry.GetFlow(registry_pb2.GetFlowRequest()).anonymized

    def _count_receipts(self) -> int:
        erasures = pages(self._registry.ListErasures, registry_pb2.ListErasuresRequest())
        return sum(len(erasure.document_ids) for erasure in erasures if erasure.HasField("receipt"))

    @property
    def _registry(self) -> registry_pb2_grpc.RegistryServiceStub:
        return self._connections.registry

    def _guard(self, work: Callable[[], None]) -> None:
        """Run a thread's work; if it ends by an error, that is written down."""
        try:
            work()
        except Exception as error:
            self.history.unfinished.append(f"{work.__name__}: {error!r}"[:300])

    def _wait(self, is_reached: Callable[[], bool], seconds: float = float("inf")) -> None:
        """Block until the state is reached, `seconds` have passed, or the time of the history is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < min(until, self._deadline):
            with suppress(TailorError):
                if is_reached():
                    return
            time.sleep(WAIT_SECONDS)

    def _repeat(self, what: str, command: Callable[[], T]) -> T | None:
        """Repeat a command until it is confirmed. None if it never is, or is refused for good, which is written down."""
        while True:
            try:
                return command()
            except TailorError as error:
                # A draft is catalogued after a moment, and a build refuses while another one goes on.
                may_pass = error.retryable or isinstance(error, NotFound | FailedPrecondition)
                if not may_pass or time.monotonic() > self._deadline:
                    self.history.unfinished.append(f"{what}: {error.reason}")
                    return None
                time.sleep(RETRY_SECONDS if error.retryable else WAIT_SECONDS)


def _answer(call: ChaosCall, ask: Callable[[], Answer]) -> ChaosCall:
    call, answer = _attempt(call, ask)
    if answer is None:
        return call
    origin = answer.provenance
    return replace(
        call,
        answer=answer.text,
        fault="" if answer.finish_reason in ("stop", "length") else f"it ended with {answer.finish_reason!r}",
        draft_id=answer.draft_id,
        specialist=origin.specialist,
        generation=origin.generation,
        adapter=origin.adapter_digest,
    )


def _attempt(call: ChaosCall, ask: Callable[[], T]) -> tuple[ChaosCall, T | None]:
    """The call with its typed error, or its answer. An error that says the valid request was wrong, or has no type, is a fault."""
    try:
        return call, ask()
    except TailorError as error:
        text = f"{error.code.name} {error.reason}"
        is_typed = error.retryable and error.reason != Reason.SERVICE_FAILED
        return replace(call, error=text, fault="" if is_typed else f"{text}: {error.message}"), None
    except Exception as error:
        return replace(call, error=type(error).__name__, fault=f"an error without a type: {error!r}"[:300]), None
