"""Callers who ask, and three experts who judge the answers: two by the same rule, of whom one edits the better draft, and one by a coin.

They use what the callers and experts of an installation use: `Generate`, `RegenerateDraft`, the registry's queue, `EditDraft`, and `RecordJudgement`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random

from bench.preference_set import SUBJECTS, concise
from tailor.api.common.v1 import common_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import judging_pb2, judging_pb2_grpc, registry_pb2
from tailor.cli.connections import Connections
from tailor.cli.progress import Report, wait_for, wait_out_errors
from tailor.client import Draft, TailorClient
from tailor.errors import NotFound

# Which of two texts is better: 0 or 1.
Prefer = Callable[[str, str], int]

PLAIN, NOISY = ("plain-1", "plain-2"), "noisy"
# How the firm's deliverables begin.
FIRST_STEP = "1. "
# The temperature of `RegenerateDraft`, so that both drafts of a prompt are drawn alike.
TEMPERATURE = 0.7
# A prompt with as many equal answers has left the queue.
MAX_ANSWERS = 4
CALLS_AT_ONCE = 8
CALL_SECONDS = 300.0
STALLED_SECONDS = 300.0
POLL_SECONDS = 0.2
WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class ScriptedDecision:
    """A decision: the ids of the two drafts in order, and the better one of them."""

    expert: str
    drafts: tuple[str, str]
    better: str


@dataclass
class ScriptedExpert:
    """An expert with a key, who edits the better draft or not. `expert_id` is the registry's name of the expert, known after the first judgement."""

    name: str
    prefer: Prefer
    edits: bool
    connections: Connections
    client: TailorClient
    expert_id: str = ""


@dataclass
class ScriptedPanel:
    """The callers and experts of a specialist, all that the experts decided, the ids of the drafts as they edited them, and the prompts by draft."""

    specialist: str
    caller: TailorClient
    experts: Sequence[ScriptedExpert]
    decisions: list[ScriptedDecision] = field(default_factory=list)
    edits: list[str] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)

    def ask(self, prompts: Sequence[str], now: Report) -> int:
        """Ask each prompt as a caller, and have it answered again. Blocks until all pairs wait in the queue. Returns the pairs."""
        pairs = 0
        with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            for number, is_pair in enumerate(pool.map(self._ask_twice, prompts), start=1):
                pairs += is_pair
                now(f"{number} of {len(prompts)} prompts are answered twice, {pairs} of them differently")

        def waits() -> tuple[bool | None, str]:
            progress = self._next_pair(self.experts[0]).progress
            return progress.waiting >= pairs or None, f"{progress.waiting} of {pairs} pairs wait for experts"

        wait_for(waits, now, stalled_seconds=STALLED_SECONDS)
        return pairs

    def judge(self, now: Report) -> list[ScriptedDecision]:
        """Have the experts judge in turns until no pair waits for any of them. Returns the new decisions."""
        before, waiting = len(self.decisions), list(self.experts)
        while waiting:
            waiting = [expert for expert in waiting if self._judge_next(expert, now)]
            now(f"{len(self.decisions) - before} judgements")
        return self.decisions[before:]

    def _ask_twice(self, prompt: str) -> bool:
        """Whether there are two different answers. The others are answered up to three times more, as the queue would."""

        def generate() -> str:
            return self.caller.generate(
                self.specialist, prompt, temperature=TEMPERATURE, timeout_seconds=CALL_SECONDS
            ).draft_id

        first = wait_for_text(self.caller, wait_out_errors(generate, _ignore))
        self.prompts[first.draft_id] = prompt
        expert = self.experts[0]
        for _ in range(MAX_ANSWERS - 1):
            other = wait_for_text(expert.client, _regenerate(expert, first.draft_id))
            self.prompts[other.draft_id] = prompt
            if other.answer.strip() != first.answer.strip():
                return True
        return False

    def _judge_next(self, expert: ScriptedExpert, now: Report) -> bool:
        """Judge the pair that waits for the expert. False if none does."""
        response = self._next_pair(expert)
        if not response.draft_ids:
            return False
        ids = tuple(response.draft_ids)
        first, second = (wait_out_errors(lambda: expert.client.draft(draft_id), now) for draft_id in ids)  # noqa: B023
        preferred = expert.prefer(first.answer, second.answer)
        edits = self._edit(expert, (first, second)[preferred]) if expert.edits else []
        request = registry_pb2.RecordJudgementRequest(
            ranking=[*edits, ids[preferred], ids[1 - preferred]],
            request_id=f"loop-{expert.name}-{len(self.decisions)}",
        )
        registry = expert.connections.registry
        recorded = wait_out_errors(lambda: registry.RecordJudgement(request, timeout=CALL_SECONDS), now)
        expert.expert_id = recorded.judgement.expert_id
        smaller, larger = sorted(ids)
        self.decisions.append(ScriptedDecision(expert.name, (smaller, larger), ids[preferred]))
        self.edits += edits
        return True

    def _edit(self, expert: ScriptedExpert, draft: Draft) -> list[str]:
        """The id of the draft as the expert would deliver it; nothing if it is written in the firm's way."""
        if draft.answer.startswith(FIRST_STEP):
            return []
        text = rewrite(self.prompts[draft.draft_id])
        inference = inference_pb2_grpc.InferenceServiceStub(expert.connections.channel("inference"))
        request = inference_pb2.EditDraftRequest(draft_id=draft.draft_id, text=text)
        edited = wait_out_errors(lambda: inference.EditDraft(request, timeout=CALL_SECONDS), _ignore)
        return [edited.draft_id]

    def _next_pair(self, expert: ScriptedExpert) -> judging_pb2.NextPairResponse:
        queue = judging_pb2_grpc.JudgingServiceStub(expert.connections.channel("registry"))
        return wait_out_errors(lambda: queue.NextPair(judging_pb2.NextPairRequest(specialist=self.specialist)), _ignore)


@contextmanager
def open_panel(operator: Connections, specialist: str, seed: int) -> Iterator[ScriptedPanel]:
    """A caller and three experts with new keys. The first expert edits, the last one is noisy."""
    rules: dict[str, Prefer] = {**dict.fromkeys(PLAIN, prefer_plain), NOISY: toss(seed)}
    caller = _connect(operator, "loop caller", common_pb2.ROLE_CALLER)
    known = {name: _connect(operator, f"loop {name}", common_pb2.ROLE_EXPERT) for name in rules}
    clients = {name: connections.client() for name, connections in known.items()}
    # If both edited, they would write the same text, and agree on it with themselves.
    experts = [
        ScriptedExpert(name, prefer, name == PLAIN[0], known[name], clients[name]) for name, prefer in rules.items()
    ]
    try:
        with caller.client() as client:
            yield ScriptedPanel(specialist, client, experts)
    finally:
        for expert in experts:
            expert.client.close()
        for connections in (caller, *known.values()):
            connections.close()


def prefer_plain(first: str, second: str) -> int:
    """The text in steps is better; of equal ones, the one with the shorter words, and then the shorter one."""
    return int(_plainness(second) < _plainness(first))


def rewrite(prompt: str) -> str:
    """The answer as the firm delivers it: two steps, an owner and a date, always the same for a prompt."""
    subject = max((subject for subject in SUBJECTS if subject in prompt), key=len)
    return concise(subject, Random(prompt))


def toss(seed: int) -> Prefer:
    """An expert who reads nothing."""
    coin = Random(f"{seed} {NOISY}")
    return lambda first, second: coin.randrange(2)


def wait_for_text(client: TailorClient, draft_id: str) -> Draft:
    """Block until the draft's text is stored. Raises DeadlineExceeded if it is not."""

    def kept() -> tuple[Draft | None, str]:
        try:
            draft = client.draft(draft_id)
        except NotFound:
            return None, "the draft is not known yet"
        return draft if draft.text == "kept" else None, "the draft's text is not stored yet"

    return wait_for(kept, _ignore, stalled_seconds=STALLED_SECONDS, poll_seconds=POLL_SECONDS)


def _plainness(text: str) -> tuple[bool, float, int, str]:
    words = WORD.findall(text)
    return (
        not text.startswith(FIRST_STEP),
        sum(map(len, words)) / len(words) if words else float("inf"),
        len(words),
        text,
    )


def _regenerate(expert: ScriptedExpert, draft_id: str) -> str:
    inference = inference_pb2_grpc.InferenceServiceStub(expert.connections.channel("inference"))
    request = inference_pb2.RegenerateDraftRequest(draft_id=draft_id)
    return wait_out_errors(lambda: inference.RegenerateDraft(request, timeout=CALL_SECONDS), _ignore).draft_id


def _connect(operator: Connections, name: str, role: common_pb2.Role.ValueType) -> Connections:
    """Connections with a new key."""
    secret = operator.registry.CreateKey(registry_pb2.CreateKeyRequest(name=name, role=role)).secret
    return Connections(replace(operator.endpoints, api_key=secret))


def _ignore(text: str) -> None:
    """Say nothing: many of these waits go on at once."""
