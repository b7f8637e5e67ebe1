"""Both engines on a tiny random Llama, with adapters from a store."""

import hashlib
import importlib.util
import itertools
import json
import math
import os
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from services.inference import handlers
from services.inference.adapter_cache import AdapterCache
from services.inference.adapters.model_store import StoredBase, VerifiedLibrary, fetch_base
from services.inference.adapters.verify import AdaptedLayers, check_config
from services.inference.domain import LENGTH, AdapterRef, Canary, ChatMessage, GenerationRequest, Sampling, ServedModel
from services.inference.generation import Cancellation
from services.inference.ports import InferenceEngine, Stream
from services.inference.split_stream import open_stream
from services.registry import wire as registry_wire
from services.registry.domain import Decision, Gate, PrimaryMetric
from services.registry.rules.gate import decide
from services.training.bases.capabilities import write_capabilities
from tailor.compute_lock import TURN_SECONDS, ComputeLock
from tailor.engine.environment import CPU_STEP_TOKENS, prepare_environment
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, Unavailable
from tailor.storage.buckets import MODELS
from tailor.storage.memory import MemoryStore
from tailor.storage.protocol import ObjectStore
from tailor.thoughts import ThoughtMarkers
from tailor.values import Thinking
from tests.evaluations import make_evaluated, make_figures
from tests.integration.listening import open_to_others
from tests.models import make_tiny_base, widen
from tests.unit.inference.fakes import KEY, make_world
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

CHAT = (ChatMessage("user", "The control envelope holds."),)
TEXTS = ["The control envelope holds and the friction ledger is short.", "A decision gate follows. Line of sight."]


def publish(
    store: ObjectStore, folder: Path, prefix: str, manifest: dict[str, Any]
) -> tuple[bytes, list[dict[str, Any]]]:
    """Store a folder's files, and return its manifest's bytes."""
    files = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        ref = store.put(MODELS, f"{prefix}/files/{digest}", path.read_bytes())
        files.append({"path": path.name, "sha256": digest, "size_bytes": ref.size_bytes, "key": ref.key})
    return json.dumps(manifest | {"files": files}).encode(), files


def publish_adapter(store: ObjectStore, folder: Path, base_digest: str, **changes: Any) -> AdapterRef:
    """Store an adapter as training does."""
    data, _ = publish(store, folder, "adapters", {"kind": "policy", "base_digest": base_digest} | changes)
    digest = hashlib.sha256(data).hexdigest()
    return AdapterRef(digest, store.put(MODELS, f"adapters/{digest}/manifest.json", data))


def make_adapter(base: Path, folder: Path, seed: int) -> Path:
    """A LoRA adapter that changes answers strongly."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16),
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    model.save_pretrained(folder)
    return folder


class Lab:
    """A store with a tiny base and two adapters."""

    def __init__(self, root: Path) -> None:
        self.store = MemoryStore()
        self.root = root
        self.source = widen(make_tiny_base(root / "base", TEXTS))
        write_capabilities(self.source)
        data, _ = publish(self.store, self.source, "bases", {"name": "tiny"})
        self.store.put(MODELS, "bases/tiny/manifest.json", data)
        self.base: StoredBase = fetch_base(self.store, "tiny", root / "cache")
        self.folders = [make_adapter(self.source, root / f"adapter{n}", n) for n in (1, 2)]
        self.adapters = [publish_adapter(self.store, folder, self.base.digest) for folder in self.folders]

    def library(self, cache: str = "cache") -> VerifiedLibrary:
        return VerifiedLibrary(self.store, self.base, self.root / cache, 32)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def plain(lab: Lab) -> Iterator[InferenceEngine]:
    from services.inference.engines.transformers_engine import TransformersEngine

    engine = TransformersEngine(lab.base.folder, targets=lab.base.layers.targets, context_length=256, threads=1)
    yield engine
    engine.close()


def text(engine: InferenceEngine, adapter: str = "", **sampling: Any) -> str:
    stream = engine.generate(engine.encode(CHAT), adapter, Sampling(**({"max_tokens": 12} | sampling)))
    return "".join(piece.text for piece in stream)


def reference(lab: Lab, completion: str, adapter: Path | None) -> float:
    """The answer's log-probability by one plain forward of transformers and peft."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(lab.source)
    model: Any = AutoModelForCausalLM.from_pretrained(lab.source, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(model, str(adapter)) if adapter else model
    prompt = f"<|im_start|>user\n{CHAT[0].content}<|im_end|>\n<|im_start|>assistant\n"
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.inference_mode():
        logits = model(torch.tensor([before + answer])).logits[0].float()
    chosen = torch.log_softmax(logits, -1)[len(before) - 1 : -1]
    return float(sum(chosen[position, token] for position, token in enumerate(answer)))


def test_scores_equal_a_plain_forward(lab: Lab, plain: InferenceEngine) -> None:
    cache = AdapterCache(plain, lab.library(), 2)
    with cache.using(lab.adapters[0]) as digest:
        for adapter, folder in (("", None), (digest, lab.folders[0])):
            score = plain.score(CHAT, "The friction ledger is short.", adapter)
            assert score.log_probability == pytest.approx(
                reference(lab, "The friction ledger is short.", folder), abs=0.02
            )
        assert plain.score(CHAT, "Short.", digest) != plain.score(CHAT, "Short.", "")


def test_adapters_change_answers_and_leave_the_base_unchanged(lab: Lab, plain: InferenceEngine) -> None:
    before = text(plain)
    cache = AdapterCache(plain, lab.library(), 1)
    answers = []
    for adapter in lab.adapters:
        with cache.using(adapter) as digest:
            answers.append(text(plain, digest))
    assert len({before, *answers}) == 3
    assert text(plain) == before


@pytest.mark.parametrize("thinking", [Thinking.HIDDEN, Thinking.SHOWN])
def test_what_the_model_writes_before_the_marker_is_its_thought(plain: InferenceEngine, thinking: Thinking) -> None:
    check_thoughts_are_split_off(plain, thinking)


def check_thoughts_are_split_off(engine: InferenceEngine, thinking: Thinking) -> None:
    written = text(engine, max_tokens=24, with_control_tokens=True)
    marker = written[len(written) // 2 :][:3]
    thought, _, answer = written.partition(marker)
    sampling, prompt = Sampling(max_tokens=24, thinking=thinking), engine.encode(CHAT, thinking=True)
    pieces = [*open_stream(engine, prompt, "", sampling, ThoughtMarkers("", marker))]
    assert "".join(piece.text for piece in pieces) == answer.lstrip()
    assert "".join(piece.thought for piece in pieces) == (thought.strip() if thinking == Thinking.SHOWN else "")
    assert (pieces[-1].tokens, pieces[-1].finish) == (24, LENGTH)


def test_each_arm_of_a_canary_gives_its_own_adapters_answers(lab: Lab, plain: InferenceEngine) -> None:
    world = make_world()
    models = replace(world.models, engine=plain, cache=AdapterCache(plain, lab.library(), 2))
    inference = replace(world.inference, models=models)
    incumbent, candidate = lab.adapters
    canary = Canary(candidate, "of-candidate", "", 50)
    served = ServedModel("reports", 2, incumbent, "of-incumbent", canary=canary)
    handlers.apply_serving(models, world.published.report, served)
    assert [report.refusal for report in world.published.reports] == [""]
    alone = {adapter.digest: text(plain, adapter.digest) for adapter in lab.adapters}
    arms: dict[str, set[str]] = {}
    for number in range(16):
        caller = replace(KEY, key_id=f"key_{number:016x}")
        for _ in range(2):
            answer = handlers.generate(
                inference, caller, GenerationRequest("reports", CHAT, Sampling(max_tokens=12)), Cancellation()
            )
            assert "".join(piece.text for piece in answer) == alone[answer.served.adapter_digest]
            arms.setdefault(caller.key_id, set()).add(answer.served.adapter_digest)
    assert {frozenset(digests) for digests in arms.values()} == {
        frozenset({adapter.digest}) for adapter in lab.adapters
    }


def test_a_running_stream_keeps_its_adapter_while_another_is_loaded(lab: Lab, plain: InferenceEngine) -> None:
    cache = AdapterCache(plain, lab.library(), 2)
    with cache.using(lab.adapters[0]) as first:
        whole = text(plain, first, max_tokens=24)
        pieces = iter(plain.generate(plain.encode(CHAT), first, Sampling(max_tokens=24)))
        streamed = next(pieces).text
        with cache.using(lab.adapters[1]) as second:
            other = text(plain, second)
        streamed += "".join(piece.text for piece in pieces)
    assert streamed == whole
    assert not whole.startswith(other)


def test_concurrent_streams_equal_streams_alone(lab: Lab, plain: InferenceEngine) -> None:
    cache = AdapterCache(plain, lab.library(), 2)
    with cache.using(lab.adapters[0]) as first, cache.using(lab.adapters[1]) as second:
        names = ["", first, second] * 2
        alone = [text(plain, name) for name in names]
        concurrent = [""] * len(names)

        def work(number: int) -> None:
            concurrent[number] = text(plain, names[number])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(names))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert concurrent == alone


def test_training_has_its_turn_before_every_token_but_the_first_and_before_a_score(
    plain: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []
    monkeypatch.setattr(plain, "await_turn", lambda: turns.append(1))
    pieces = iter(plain.generate(plain.encode(CHAT), "", Sampling(max_tokens=4, temperature=1.5, seed=3)))
    counts = [len(turns) for _ in pieces]
    assert counts[:3] == [0, 1, 2]
    turns.clear()
    plain.score(CHAT, "The friction ledger is short.", "")
    assert len(turns) == 1


def check_training_has_its_turn(engine: InferenceEngine, lock: Path) -> None:
    """While training takes one turn after the other, an answer stops for a turn, and comes to its end."""
    training, ended = ComputeLock(lock), threading.Event()

    def claim() -> None:
        while not ended.wait(TURN_SECONDS / 10):
            training.take_turn()

    claiming = threading.Thread(target=claim)
    claiming.start()
    try:
        endless = Sampling(max_tokens=200, schema='{"type": "array", "minItems": 200}')
        times = [time.monotonic() for _ in engine.generate(engine.encode(CHAT), "", endless)]
    finally:
        ended.set()
        claiming.join()
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) > TURN_SECONDS / 2


@pytest.mark.parametrize("schema", ["", '{"type": "array", "minItems": 200}'])
def test_a_cancelled_stream_ends_at_once(plain: InferenceEngine, schema: str) -> None:
    stream = plain.generate(plain.encode(CHAT), "", Sampling(max_tokens=200, temperature=1.5, seed=3, schema=schema))
    pieces = iter(stream)
    next(pieces)
    stream.cancel()
    assert [(piece.finish, piece.tokens) for piece in pieces] == [("cancelled", 1)]


def test_draws_without_a_seed_differ(plain: InferenceEngine) -> None:
    assert len({text(plain, temperature=1.0) for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "least", [{"temperature": 1e-45}, {"temperature": 5e-324}, {"temperature": 1.0, "top_p": 1e-320}]
)
def test_the_smallest_numbers_draw_the_likeliest(plain: InferenceEngine, least: dict[str, float]) -> None:
    assert text(plain, "", **least) == text(plain)


def test_a_seed_repeats_a_draw_and_stop_texts_end_it(plain: InferenceEngine) -> None:
    drawn = text(plain, temperature=1.0, seed=7)
    assert drawn == text(plain, temperature=1.0, seed=7)
    assert text(plain, temperature=0.7, top_p=0.9, seed=8) != drawn
    stop = text(plain)[4:6]
    assert stop not in text(plain, stop=(stop,))


SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 8},
        "grade": {"enum": ["low", "high"]},
        "pages": {"type": "integer"},
    },
    "required": ["title", "grade"],
    "additionalProperties": False,
}


def check_schema_is_followed(engine: InferenceEngine, adapter: str) -> None:
    """A random model writes JSON, and an answer that is cut finishes with `length`."""
    for seed in (1, 2):
        sampling = Sampling(temperature=1.0, seed=seed, max_tokens=120, schema=json.dumps(SCHEMA))
        pieces = list(engine.generate(engine.encode(CHAT), adapter, sampling))
        written = "".join(piece.text for piece in pieces)
        if pieces[-1].finish == "stop":
            jsonschema.validate(json.loads(written), SCHEMA)
        else:
            assert pieces[-1].finish == "length" and pieces[-1].tokens == 120
    cut = list(engine.generate(engine.encode(CHAT), adapter, Sampling(max_tokens=3, schema=json.dumps(SCHEMA))))
    assert (cut[-1].finish, cut[-1].tokens) == ("length", 3)


def test_an_answer_check_schema_is_followed(lab: Lab, plain: InferenceEngine) -> None:
    check_schema_is_followed(plain, "")
    with AdapterCache(plain, lab.library(), 2).using(lab.adapters[0]) as digest:
        check_schema_is_followed(plain, digest)
    whole = Sampling(temperature=1.0, seed=1, max_tokens=120, schema='{"enum": ["low", "high"]}')
    pieces = list(plain.generate(plain.encode(CHAT), "", whole))
    assert pieces[-1].finish == "stop"
    assert json.loads("".join(piece.text for piece in pieces)) in ("low", "high")


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ('{"oneOf": [{"type": "string"}, {"maxLength": 3}]}', "oneOf"),
        ('{"not": {"type": "string"}}', "not"),
        ('{"type": "robot"}', "type"),
        ('{"type": "string", "pattern": "("}', "regex"),
        ('{"$ref": "https://example.com/schema.json"}', "the schema cannot be enforced"),
        ('{"$ref": "#"}', "the schema cannot be enforced"),
        ('{"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}', "the schema cannot be enforced"),
    ],
)
def test_refuses_a_schema_that_cannot_be_enforced_and_names_only_its_keyword(
    plain: InferenceEngine, schema: str, named: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        plain.check_schema(schema, lambda: False)
    violation = caught.value.field_violations["json_schema"]
    assert named in violation
    assert "robot" not in violation and "example" not in violation


COSTLY = json.dumps({"type": "string", "allOf": [{"pattern": f"^[ab]*a[ab]{{{n}}}$"} for n in range(10, 40)]})


def test_a_schema_that_takes_gigabytes_is_refused_and_the_next_one_is_followed(plain: InferenceEngine) -> None:
    for _ in range(2):
        with pytest.raises(InvalidArgument) as caught:
            plain.check_schema(COSTLY, lambda: False)
        assert "takes too much" in caught.value.field_violations["json_schema"]
    plain.check_schema(json.dumps(SCHEMA), lambda: False)


def test_a_caller_who_leaves_ends_the_trial_of_a_schema(plain: InferenceEngine) -> None:
    started = time.monotonic()
    with pytest.raises(Aborted):
        plain.check_schema(COSTLY.replace("39", "38"), lambda: time.monotonic() > started + 0.3)
    plain.check_schema('{"enum": ["low"]}', lambda: False)


def test_log_probabilities_are_those_of_the_model_before_temperature_and_schema(
    lab: Lab, plain: InferenceEngine
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(lab.source, dtype=torch.bfloat16)
    prompt = plain.encode(CHAT)
    with torch.inference_mode():
        expected = torch.log_softmax(model(torch.tensor([prompt])).logits[0, -1].float(), -1)
    for extra in ({}, {"temperature": 2.0, "seed": 1, "repetition_penalty": 1.5, "schema": '{"type": "object"}'}):
        sampling = Sampling(max_tokens=4, top_log_probabilities=3, **extra)  # type: ignore[arg-type]
        pieces = list(plain.generate(prompt, "", sampling))
        tokens = [token for piece in pieces for token in piece.log_probabilities]
        assert len(tokens) == pieces[-1].tokens
        top = [likely.log_probability for likely in tokens[0].top]
        assert top == pytest.approx(expected.topk(3).values.tolist(), abs=0.02)
        if extra:
            assert tokens[0].token.token.startswith("{")
        else:
            assert [token.token for token in tokens] == [token.top[0] for token in tokens]
    none = plain.generate(prompt, "", Sampling(max_tokens=4))
    assert not any(piece.log_probabilities for piece in none)


def test_a_row_over_the_context_is_refused(plain: InferenceEngine) -> None:
    with pytest.raises(InvalidArgument) as caught:
        plain.score(CHAT, "word " * 400, "")
    assert caught.value.reason == "ROW_TOO_LONG"


def probes(lab: Lab, folder: Path, off: float = 0.0) -> list[dict[str, Any]]:
    """Probe rows as the trainer stores them, measured by a plain forward; `off` is added to each measurement."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(lab.source)
    prompt = f"<|im_start|>user\n{CHAT[0].content}<|im_end|>\n<|im_start|>assistant\n"
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    rows = []
    for completion in ("The friction ledger is short.", "Line of sight."):
        answer = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        mean = reference(lab, completion, folder) / len(answer)
        entry = {"tokens": before + answer, "prompt_length": len(before), "log_probability": mean + off}
        rows.append({"row_id": completion} | entry)
    return rows


def measure_parities(lab: Lab, engine: InferenceEngine) -> list[float]:
    """Parities of three candidates: as trained, with shifted measurements, and with another adapter's weights."""
    right, off = probes(lab, lab.folders[0]), probes(lab, lab.folders[0], 0.5)
    published = [(lab.folders[0], right), (lab.folders[0], off), (lab.folders[1], right)]
    models = replace(make_world().models, engine=engine, cache=AdapterCache(engine, lab.library("parity"), 1))
    parities = []
    for folder, rows in published:
        adapter = publish_adapter(lab.store, folder, lab.base.digest, probes=rows)
        parities.append(handlers.load_candidate(models, adapter).parity or 0.0)
    return parities


def test_only_a_candidate_as_trained_has_parity_with_its_trainer(lab: Lab, plain: InferenceEngine) -> None:
    right, off, another = measure_parities(lab, plain)
    assert right < 0.01
    assert off == pytest.approx(0.5, abs=0.01)
    assert another > 0.1
    gate = Gate(PrimaryMetric("rougeL"), beat=("base",))
    figures = make_figures("rougeL", base=0.1, candidate=0.2)
    for parity, passes in ((right, True), (off, False), (another, False)):
        evaluation = registry_wire.to_evaluation(make_evaluated("ab12", "reports", figures, parity=parity))
        assert (decide(gate, evaluation).decision is Decision.PASSED) is passes


def test_refuses_a_probe_with_unknown_tokens(lab: Lab, plain: InferenceEngine) -> None:
    for tokens in ((5, 10**6), (5, -1)):
        with pytest.raises(InvalidArgument) as caught:
            plain.score_tokens(tokens, 1, "")
        assert caught.value.reason == "UNKNOWN_TOKEN"


def refused(lab: Lab, adapter: AdapterRef, cache: str) -> str:
    with pytest.raises(FailedPrecondition) as caught:
        lab.library(cache).fetch(adapter)
    return caught.value.reason


def copied(lab: Lab, folder: Path) -> Path:
    folder.mkdir()
    for path in lab.folders[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_refuses_a_flipped_byte_in_the_store_and_repairs_one_in_the_cache(lab: Lab, tmp_path: Path) -> None:
    folder = copied(lab, tmp_path / "copy")
    (folder / "README.md").write_text("another card")
    weights = bytearray((folder / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(weights)
    good = lab.adapters[0]
    cached = lab.library("touched").fetch(good)
    (cached / "adapter_model.safetensors").write_bytes(weights)
    (cached / "evil.py").write_text("")
    assert lab.library("touched").fetch(good) == cached
    assert {path.name for path in cached.iterdir()} == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert (cached / "adapter_model.safetensors").read_bytes() != bytes(weights)
    key = (
        MODELS,
        f"adapters/files/{hashlib.sha256((lab.folders[0] / 'adapter_model.safetensors').read_bytes()).hexdigest()}",
    )
    original = lab.store.objects[key]
    try:
        lab.store.objects[key] = bytes(weights)
        assert refused(lab, good, "flipped") == "CORRUPT_OBJECT"
    finally:
        lab.store.objects[key] = original


def test_refuses_another_base_a_reward_model_and_a_wrong_digest(lab: Lab) -> None:
    folder = lab.folders[0]
    assert refused(lab, publish_adapter(lab.store, folder, "0" * 64), "refused") == "WRONG_BASE"
    assert refused(lab, publish_adapter(lab.store, folder, lab.base.digest, kind="reward"), "refused") == "WRONG_KIND"
    wrong = AdapterRef("0" * 64, lab.adapters[0].manifest)
    assert refused(lab, wrong, "refused") == "WRONG_DIGEST"


def test_refuses_a_pickle_next_to_or_instead_of_the_weights(lab: Lab, tmp_path: Path) -> None:
    beside = copied(lab, tmp_path / "beside")
    (beside / "training_args.bin").write_bytes(pickle.dumps({"a": 1}))
    assert refused(lab, publish_adapter(lab.store, beside, lab.base.digest), "refused") == "UNEXPECTED_FILE"
    instead = copied(lab, tmp_path / "instead")
    (instead / "adapter_model.safetensors").write_bytes(pickle.dumps({"a": b"0" * 4096}))
    assert refused(lab, publish_adapter(lab.store, instead, lab.base.digest), "refused") == "NOT_SAFETENSORS"


def enlarged(lab: Lab, folder: Path, magnitude: float) -> Path:
    """An adapter whose numbers are all of this size."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = copied(lab, folder) / "adapter_model.safetensors"
    tensors = {name: torch.full_like(tensor, magnitude) for name, tensor in load_file(weights).items()}
    save_file(tensors, weights)
    return folder


def test_refuses_a_weight_that_is_no_number_and_files_too_large_for_the_base(lab: Lab, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = copied(lab, tmp_path / "nan")
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[sorted(tensors)[0]][0, 0] = torch.nan
    save_file(tensors, folder / "adapter_model.safetensors")
    assert refused(lab, publish_adapter(lab.store, folder, lab.base.digest), "refused") == "NOT_FINITE"
    (folder / "README.md").write_bytes(b" " * (2**20 + 1))
    assert refused(lab, publish_adapter(lab.store, folder, lab.base.digest), "refused") == "TOO_LARGE"


@pytest.mark.parametrize("magnitude", [1e4, 1e16, 1e30, 3e38])
def test_refuses_numbers_that_would_overflow_in_the_layers(lab: Lab, tmp_path: Path, magnitude: float) -> None:
    adapter = publish_adapter(lab.store, enlarged(lab, tmp_path / "large", magnitude), lab.base.digest)
    assert refused(lab, adapter, "refused") == "WEIGHTS_TOO_LARGE"


def test_the_largest_numbers_that_are_admitted_stay_finite(lab: Lab, plain: InferenceEngine, tmp_path: Path) -> None:
    adapter = publish_adapter(lab.store, enlarged(lab, tmp_path / "large", 0.45), lab.base.digest)
    assert refused(
        lab, publish_adapter(lab.store, enlarged(lab, tmp_path / "larger", 0.55), lab.base.digest), "refused"
    )
    with AdapterCache(plain, lab.library(), 2).using(adapter) as digest:
        assert math.isfinite(plain.score(CHAT, "It holds.", digest).log_probability)


def check_an_overflow_spoils_no_other_answer(engine: InferenceEngine, good: str, large: Path) -> None:
    """The adapter is loaded without the library's checks, as if they had missed it."""

    def others() -> list[str | float]:
        return [text(engine, max_tokens=40), text(engine, good), engine.score(CHAT, "It holds.", "").log_probability]

    before = others()
    engine.load("large", large)
    for _ in range(3):
        with pytest.raises(FailedPrecondition) as overflow:
            text(engine, "large")
        assert overflow.value.reason == "LOGITS_NOT_FINITE"
        with pytest.raises(FailedPrecondition):
            engine.score(CHAT, "It holds.", "large")
        assert others() == before
    engine.unload("large")


def test_an_overflow_is_an_error_and_leaves_every_other_answer_as_it_was(
    lab: Lab, plain: InferenceEngine, tmp_path: Path
) -> None:
    with AdapterCache(plain, lab.library(), 2).using(lab.adapters[0]) as good:
        check_an_overflow_spoils_no_other_answer(plain, good, enlarged(lab, tmp_path / "large", 1e30))


def test_refuses_an_extra_module(lab: Lab, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = copied(lab, tmp_path / "extra")
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.zeros(4, 128)
    save_file(tensors, folder / "adapter_model.safetensors")
    assert refused(lab, publish_adapter(lab.store, folder, lab.base.digest), "refused") == "UNEXPECTED_MODULE"


def test_refuses_a_base_with_a_pickle_and_waits_for_a_missing_one(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    data, _ = publish(lab.store, folder, "bases", {"name": "unsafe"})
    lab.store.put(MODELS, "bases/unsafe/manifest.json", data)
    with pytest.raises(FailedPrecondition) as unsafe:
        fetch_base(lab.store, "unsafe", tmp_path / "cache")
    assert unsafe.value.reason == "UNSAFE_FILE"
    with pytest.raises(Unavailable):
        fetch_base(lab.store, "none", tmp_path / "cache")


def tampered(lab: Lab, folder: Path, how: str) -> AdapterRef:
    """An adapter with distinct bytes and one defect."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = copied(lab, folder) / "adapter_model.safetensors"
    (folder / "README.md").write_text(how)
    tensors = load_file(weights)
    first = next(iter(tensors))
    tensors[first] = tensors[first] * 1.5
    extra = {
        "an extra module": "base_model.model.lm_head.lora_A.weight",
        "a magnitude vector": first.replace(".lora_A.weight", ".lora_magnitude_vector"),
        "a score head": "base_model.model.score.weight",
    }
    save_file(tensors | ({extra[how]: torch.zeros(4, 128)} if how in extra else {}), weights)
    if how == "a pickle":
        weights.write_bytes(pickle.dumps({"a": b"0" * 4096}))
    if how == "another rank":
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
    changes = {"another base": {"base_digest": "0" * 64}, "a reward model": {"kind": "reward"}}.get(how, {})
    data, files = publish(lab.store, folder, "adapters", {"kind": "policy", "base_digest": lab.base.digest} | changes)
    if how == "a path":
        data = data.replace(b'"README.md"', b'"../../README.md"')
    if how == "a flipped byte":
        key = next(file["key"] for file in files if file["path"] == weights.name)
        lab.store.objects[MODELS, key] = weights.read_bytes()[:-1] + b"!"
    digest = hashlib.sha256(data).hexdigest()
    return AdapterRef(digest, lab.store.put(MODELS, f"adapters/{digest}/manifest.json", data))


TAMPERED = {
    "nothing": "",
    "a flipped byte": "CORRUPT_OBJECT",
    "another base": "WRONG_BASE",
    "another rank": "WRONG_SHAPE",
    "an extra module": "UNEXPECTED_MODULE",
    "a magnitude vector": "UNEXPECTED_MODULE",
    "a score head": "UNEXPECTED_MODULE",
    "a reward model": "WRONG_KIND",
    "a pickle": "NOT_SAFETENSORS",
    "a path": "UNSAFE_NAME",
}


def test_a_tampered_generation_leaves_the_old_one_serving(lab: Lab, plain: InferenceEngine, tmp_path: Path) -> None:
    world = make_world()
    models = replace(world.models, engine=plain, cache=AdapterCache(plain, lab.library("served"), 2))
    inference = replace(world.inference, models=models)

    def ask() -> tuple[int, str]:
        question = GenerationRequest("reports", CHAT, Sampling(max_tokens=5))
        answer = handlers.generate(inference, KEY, question, Cancellation())
        list(answer)
        return answer.served.generation, answer.text

    for generation, how in enumerate(TAMPERED, 1):
        adapter = tampered(lab, tmp_path / str(generation), how)
        handlers.apply_serving(models, world.published.report, ServedModel("reports", generation, adapter))
        if not TAMPERED[how]:
            before = ask()
        assert ask() == before, how
    assert [report.refusal for report in world.published.reports] == list(TAMPERED.values())
    assert before[0] == 1


def test_a_digest_that_is_a_path_reaches_no_folder(lab: Lab, tmp_path: Path) -> None:
    outside = tmp_path / "cache" / "outside"
    outside.mkdir(parents=True)
    library = VerifiedLibrary(lab.store, lab.base, tmp_path / "cache", 32)
    assert not library.drop("../outside")
    assert outside.is_dir()
    manifest = lab.adapters[0].manifest
    with pytest.raises(FailedPrecondition) as caught:
        library.fetch(AdapterRef("../outside", replace(manifest, sha256="../outside")))
    assert caught.value.reason == "WRONG_DIGEST"


def test_knows_every_key_that_peft_writes() -> None:
    from dataclasses import fields

    from peft import LoraConfig

    written = {field.name for field in fields(LoraConfig)} - {"runtime_config"}
    config = dict.fromkeys(written) | {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4}
    config |= {"peft_version": "0.21", "bias": "none", "target_modules": ["q_proj"]}
    config |= {"lora_dropout": 0.0, "use_rslora": False}
    assert check_config(json.dumps(config).encode(), AdaptedLayers(("q_proj",), 32)).rank == 2


def check_equal_log_probabilities(engine: InferenceEngine, plain: InferenceEngine, adapter: str) -> None:
    """Two engines give the same log-probabilities for the same tokens."""
    sampling = Sampling(max_tokens=3, top_log_probabilities=2)
    tokens = [
        [
            token
            for piece in either.generate(either.encode(CHAT), adapter, sampling)
            for token in piece.log_probabilities
        ]
        for either in (engine, plain)
    ]
    assert [token.token.token for token in tokens[0]] == [token.token.token for token in tokens[1]]
    for ours, theirs in zip(*tokens, strict=True):
        assert ours.token.log_probability == pytest.approx(theirs.token.log_probability, abs=0.1)
        assert len(ours.top) == 2 and ours.top[0] == ours.token
        assert ours.top[1].log_probability == pytest.approx(theirs.top[1].log_probability, abs=0.1)


def check_beats_end_while_a_step_hangs(engine: Any) -> None:
    """The engine beats while its loop runs; it does not while the loop, in which its steps run, is held."""
    stop, beats, held, released = threading.Event(), list[float](), threading.Event(), threading.Event()
    watch = threading.Thread(target=engine.watch, args=(stop, lambda: beats.append(time.monotonic())))

    def hold() -> None:
        held.set()
        released.wait(120)

    watch.start()
    try:
        wait_until(lambda: len(beats) >= 2)
        engine._loop.call_soon_threadsafe(hold)
        assert held.wait(60)
        before = len(beats)
        time.sleep(2.5)
        assert len(beats) <= before + 1
        released.set()
        wait_until(lambda: len(beats) >= before + 3)
    finally:
        released.set()
        stop.set()
        watch.join(60)


def check_seeds_hold_where_prompts_take_several_steps(engine: InferenceEngine) -> None:
    """Draws with seeds are the same alone and among prompts that no step can read at once."""
    prompts = [tuple(range(10 + 16 * number, 210 + 16 * number)) for number in range(8)]
    assert sum(map(len, prompts)) > 2 * CPU_STEP_TOKENS

    def draw(number: int) -> Stream:
        return engine.generate(prompts[number], "", Sampling(max_tokens=4, temperature=1.0, seed=number))

    streams = [draw(number) for number in range(8)]
    together = ["".join(piece.text for piece in stream) for stream in streams]
    assert together == ["".join(piece.text for piece in draw(number)) for number in range(8)]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vllm is not installed; the transformers engine serves here"
)
def test_vllm_scores_like_transformers_and_keeps_the_base_clean_in_a_mixed_batch(
    lab: Lab, plain: InferenceEngine, tmp_path: Path
) -> None:
    from services.inference.engines import vllm_engine

    prepare_environment(1, 1)
    before = open_to_others(os.getpid())
    lock = tmp_path / "lock"
    engine = vllm_engine.VllmEngine(
        lab.base.folder,
        targets=lab.base.layers.targets,
        context_length=256,
        max_loras=2,
        max_lora_rank=8,
        max_concurrent=8,
        compute_lock=lock,
    )
    try:
        assert open_to_others(os.getpid()) == before
        ours, theirs = AdapterCache(plain, lab.library(), 2), AdapterCache(engine, lab.library(), 2)
        with (
            ours.using(lab.adapters[0]),
            ours.using(lab.adapters[1]),
            theirs.using(lab.adapters[0]) as first,
            theirs.using(lab.adapters[1]) as second,
        ):
            names = ["", first, second] * 2
            scores: dict[int, float] = {}
            streams = [engine.generate(engine.encode(CHAT), name, Sampling(max_tokens=200)) for name in names]
            for number, name in enumerate(names):
                scores[number] = engine.score(CHAT, "The friction ledger is short.", name).log_probability
            for number, name in enumerate(names):
                expected = plain.score(CHAT, "The friction ledger is short.", name).log_probability
                assert math.isclose(scores[number], expected, rel_tol=0.02), name
            for stream in streams[3:]:
                stream.cancel()
            ends = [list(stream)[-1] for stream in streams]
            assert {end.finish for end in ends[:3]} <= {"stop", "length"}
            assert all(end.finish for end in ends)
            check_training_has_its_turn(engine, lock)
            check_schema_is_followed(engine, first)
            check_thoughts_are_split_off(engine, Thinking.SHOWN)
            endless = Sampling(max_tokens=200, schema='{"type": "array", "minItems": 200}')
            cancelled = engine.generate(engine.encode(CHAT), first, endless)
            next(iter(cancelled))
            cancelled.cancel()
            assert list(cancelled)[-1].finish == "cancelled"
            check_equal_log_probabilities(engine, plain, first)
            check_seeds_hold_where_prompts_take_several_steps(engine)
            # vLLM omits a character whose bytes are incomplete.
            assert text(engine, first, max_tokens=3) == text(plain, first, max_tokens=3).rstrip("�")
        with AdapterCache(engine, lab.library(), 1).using(lab.adapters[0]) as good:
            check_an_overflow_spoils_no_other_answer(engine, good, enlarged(lab, tmp_path / "large", 1e30))
        right, off, another = measure_parities(lab, engine)
        assert right < 0.05
        assert off == pytest.approx(0.5, abs=0.05)
        assert another > 0.1
        check_beats_end_while_a_step_hangs(engine)
    finally:
        engine.close()
