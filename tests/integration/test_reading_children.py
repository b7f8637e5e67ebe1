"""Texts are read in child processes: one that takes too much is ended and refused, and the next one is read."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.anonymization.adapters.children import child
from services.anonymization.adapters.children.child_analyzer import ChildAnalyzer
from services.anonymization.adapters.children.messages import REQUEST, Installation, Operation, ReadRequest, decode
from services.anonymization.domain import Action
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise import budget
from services.anonymization.recognise.analysis import TextToRead
from services.anonymization.recognise.analyzer import CACHE_SIZE
from services.anonymization.recognise.detectors.definition import Detector, DetectorKind, load_detectors
from services.anonymization.recognise.recognition import recognise
from tailor.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, ResourceExhausted
from tailor.frames import read_frame, write_frame
from tests.analyzers import load_english
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
MEMO = "Ngozi Okafor of Meridian Foods Ltd signed on Monday. Call her on +44 20 7946 0958."
LONG = TextToRead("Ngozi Okafor signs the report of the house. " * 8_000)
SWEDISH = (
    "Här kommer fakturan för mars månad, och vi har bifogat kontraktet som du bad om. Det är viktigt att du svarar."
)
MODULE = "services.anonymization.adapters.children.child"


def installation(*more: Detector) -> Installation:
    return Installation((*load_detectors(), *more), load_policy(), ("en",), ("GB", "US"), is_held=True)


@pytest.fixture(scope="module")
def analyzer() -> Iterator[ChildAnalyzer]:
    analyzer = ChildAnalyzer.start(installation(), CACHE_SIZE)
    yield analyzer
    analyzer.parent.close()


def ask(analyzer: ChildAnalyzer, question: TextToRead, *, cpu_seconds: float = 60.0, memory_bytes: int = 2**31) -> None:
    request = ReadRequest(
        Operation.RECOGNISE, question, analyzer.policy, CACHE_SIZE, False, cpu_seconds=cpu_seconds, memory_bytes=memory_bytes
    )  # fmt: skip
    analyzer.pool.ask(request)


def check_next(analyzer: ChildAnalyzer) -> None:
    """The next text is read."""
    kinds = [finding.entity_type for finding in analyzer.recognise(TextToRead(MEMO)).findings]
    assert kinds == ["PERSON", "CLIENT", "PHONE_NUMBER"]


def processes() -> list[int]:
    """The ids of this process's readers: the one that loaded the models, and those that it forked."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_text().split("\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if MODULE in command and state[0] != "Z":
            found.append((int(folder.name), int(state[1])))
    own = {process for process, parent in found if parent == os.getpid()}
    return [process for process, parent in found if process in own or parent in own]


def test_children_find_what_this_process_finds(analyzer: ChildAnalyzer) -> None:
    here = recognise(load_english(), TextToRead(MEMO))
    assert analyzer.recognise(TextToRead(MEMO)).findings == here.findings
    assert analyzer.find(MEMO) == load_english().find(MEMO)
    assert analyzer.lexicon_for(MEMO).is_plain("house")
    assert [section.language for section in analyzer.recognise(TextToRead(MEMO)).sections] == ["en"]


def test_policies_of_one_digest_are_told_apart(analyzer: ChildAnalyzer) -> None:
    kept = replace(analyzer.policy, actions={**analyzer.policy.actions, "PERSON": Action.KEEP})
    findings = analyzer.with_policy(kept, CACHE_SIZE).recognise(TextToRead(MEMO)).findings
    assert [finding.entity_type for finding in findings] == ["CLIENT", "PHONE_NUMBER"]
    check_next(analyzer)


def test_a_refusal_comes_with_its_reason(analyzer: ChildAnalyzer) -> None:
    with pytest.raises(InvalidArgument) as refused:
        analyzer.recognise(TextToRead(SWEDISH))
    assert refused.value.reason == "LANGUAGE_NOT_COVERED" and "`sv`" in refused.value.message
    assert analyzer.accepting_all().recognise(TextToRead(SWEDISH)).sections[0].rules_only


def test_a_missing_model_is_said_at_the_start() -> None:
    missing = Detector("names", DetectorKind.SPACY, ("en",), model="no_such_model", labels={"PER": "PERSON"})
    with pytest.raises(FailedPrecondition) as refused:
        ChildAnalyzer.start(installation(missing), CACHE_SIZE)
    assert refused.value.reason == "INVALID_MODEL" and "no_such_model" in refused.value.message


def test_a_text_that_takes_more_than_it_may_is_refused_and_the_next_one_is_read(analyzer: ChildAnalyzer) -> None:
    with pytest.raises(ResourceExhausted) as refused:
        ask(analyzer, LONG, cpu_seconds=0.2)
    assert refused.value.reason == "TOO_EXPENSIVE"
    check_next(analyzer)


def test_a_child_without_memory_for_a_text_ends_by_its_limit() -> None:
    script = (
        "import os, socket, sys\n"
        "from services.anonymization.adapters.children import child\n"
        "child.answer = lambda analyzers, request: bytes(bytearray(256 * 2**20))[:4]\n"
        "for number in map(int, sys.argv[1:]):\n"
        "    if not (reader := os.fork()):\n"
        "        child.serve(socket.socket(fileno=number), None)\n"
        "        os._exit(0)\n"
        "    os.close(number)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]), flush=True)\n"
    )
    pairs = {64 * 2**20: socket.socketpair(), 0: socket.socketpair()}
    numbers = [theirs.fileno() for _, theirs in pairs.values()]
    command = [sys.executable, "-c", script, *map(str, numbers)]
    codes = []
    with subprocess.Popen(command, pass_fds=numbers, cwd=ROOT, stdout=subprocess.PIPE, text=True) as reader:
        for memory_bytes, (ours, theirs) in pairs.items():
            theirs.close()
            with ours, ours.makefile("wb") as requests, ours.makefile("rb") as answers:
                request = ReadRequest(
                    Operation.ANALYZE, TextToRead(MEMO), load_policy(), 1, False, cpu_seconds=60.0, memory_bytes=memory_bytes
                )  # fmt: skip
                write_frame(requests, REQUEST.dump_json(request))
                answered = read_frame(answers, 2**20) is not None
            assert reader.stdout is not None
            codes.append((answered, int(reader.stdout.readline())))
    assert codes == [(False, child.NO_MEMORY), (True, 0)]


def test_a_defect_is_reported_with_its_place_and_without_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError(MEMO)

    analyzers = child.Analyzers(installation())
    monkeypatch.setattr(analyzers.sections, "sections", fail)
    request = ReadRequest(
        Operation.SECTIONS, TextToRead(MEMO), load_policy(), 1, False, cpu_seconds=60.0, memory_bytes=0
    )
    with pytest.raises(InvalidArgument) as failed:
        decode(child.answer(analyzers, request))
    assert failed.value.reason == "CHILD_FAILED" and f"KeyError in {Path(__file__).name}" in failed.value.message
    assert "Okafor" not in failed.value.message


def test_work_for_a_caller_who_has_gone_ends(analyzer: ChildAnalyzer) -> None:
    gone = threading.Event()
    threading.Timer(0.3, gone.set).start()
    with budget.limit(600, gone.is_set), pytest.raises(DeadlineExceeded):
        ask(analyzer, TextToRead(LONG.text * 2))
    check_next(analyzer)


def test_another_text_does_not_wait_for_a_long_one(analyzer: ChildAnalyzer) -> None:
    gone = threading.Event()

    def read() -> None:
        with budget.limit(600, gone.is_set), pytest.raises(DeadlineExceeded):
            ask(analyzer, TextToRead(LONG.text * 2))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.2)
    check_next(analyzer)
    assert reader.is_alive()
    gone.set()
    reader.join(60)


def test_a_child_or_all_of_them_killed_by_others_are_replaced(analyzer: ChildAnalyzer) -> None:
    check_next(analyzer)
    for process in processes():
        os.kill(process, signal.SIGKILL)
    check_next(analyzer)
    with pytest.raises(ResourceExhausted):
        ask(analyzer, LONG, cpu_seconds=0.2)
    check_next(analyzer)


def test_children_hold_no_secret_and_end_with_the_service(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        "import sys, time\n"
        "from tests.integration.test_reading_children import ChildAnalyzer, CACHE_SIZE, installation, processes\n"
        "analyzer = ChildAnalyzer.start(installation(), CACHE_SIZE)\n"
        "print(*processes(), flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TAILOR_VAULT_KEY": "a secret"}
    with subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        started = [int(number) for number in service.stdout.readline().split()]
        assert len(started) == 2
        assert not any("TAILOR" in Path(f"/proc/{number}/environ").read_text() for number in started)
        service.kill()
        wait_until(lambda: not any(map(is_running, started)), 60)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
