"""What the rows teach: the small base trained on the rows of before, and on those of today, of the same documents.

Both sides train the same number of tokens (prompts and answers) by the real worker with the same recipe, on rows that a fixed draw takes from all rows of the train
documents. The documents of one package or command are on one side; an eighth of these families is held out. All three models get the same prompts, whose wording
neither side trains:

- `loss`: the mean loss per token of parts of held-out documents, as answers to a prompt with the title and the words before. Parts that share 13 words with a
  train document are left out. Every part is asked about twice: with its line breaks, as rows of before have them, and with single spaces, as rows of today read them.
- `fabrication`: of the numbers, and of the capitalised words inside a sentence, of greedy answers to prompts with facts of a held-out document: the share that the
  prompt does not have. Every document is asked about twice: with the facts as a list, as in rows of today, and in a line, as in rows of before.
- `facts_used`: the share of such values of the facts that the answer has, because an answer that says nothing invents nothing.

Intervals are of 95 %, by 2,000 bootstrap samples of documents; those of differences are paired. They do not contain the chance of the draw of rows and of training,
because each side is trained once.
"""

import hashlib
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import rows_check, rows_old
from bench.rows_corpus import BASE
from bench.rows_measure import Place
from bench.rows_questions import (
    BEFORE_WORDS,
    FILE,
    LINE,
    LIST,
    PART_WORDS,
    SPACED,
    HeldOutQuestion,
    make_parts,
    make_questions,
    without_shared,
)
from bench.rows_real import find_family
from bench.rows_texts import Paper
from bench.training_house import House, Used, fetch_weights, recipe, run_worker
from services.synthetic.adapters.tokenizers import StoredTokenizers
from services.synthetic.domain import Document, Kind, Specialist, Text
from services.synthetic.domain import Row as MadeRow
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.document_rows import make_rows
from services.training.bases.files import load_tokenizer
from services.training.methods import held_out, loading, model
from tailor.chat import Encoded, encode
from tailor.datasets import HELD_OUT, TRAIN
from tailor.storage.ref import Ref
from tailor.values import Labels, RowPolicy
from tests.datasets import store_dataset
from tests.unit.training.stores import FileStore

MAX_ROW_TOKENS = 1024
HELD_OUT_EVERY = 8
LEARNING_RATE = 2e-3
NEW_TOKENS, BATCH, REPETITION_PENALTY = 96, 20, 1.05
SAMPLES, SEED = 2_000, 7

Message = dict[str, str]
Pair = tuple[float, float]


def measure(place: Place, papers: Sequence[Paper], tokens: int, documents: int) -> dict[str, Any]:
    """Train both sides and compare them with each other and with the base, on at most this number of held-out documents."""
    train, kept = split_families(papers)
    kept = kept[:documents]
    counter = StoredTokenizers(FileStore(place.store)).for_base(BASE)
    rows = {"old": old_rows(train), "new": new_rows(train, counter)}
    all_parts = [part for paper in kept for part in make_parts(paper)]
    parts = without_shared(all_parts, train)
    asked = make_questions(kept)
    examination = Examination(place, parts, asked)
    results, sides = {"base": examination.of_base()}, {}
    print("base", summarise(results["base"]), file=sys.stderr)
    for name, kind_rows in rows.items():
        chosen = draw_rows(kind_rows, counter, tokens)
        used = _train(place, name, chosen, parts, max(1.0, tokens / sum(count_tokens(row, counter) for row in chosen)))
        results[name] = examination.of_adapter(used)
        print(name, summarise(results[name]), file=sys.stderr)
        sides[name] = _describe_side(train, kind_rows, chosen, used, counter)
    return {
        "trained_tokens": tokens,
        "train_documents": len(train),
        "held_out_documents": len(kept),
        "parts": len(parts),
        "shared_parts": len(all_parts) - len(parts),
        "questions": len(asked),
        **{name: {**sides.get(name, {}), **summarise(result)} for name, result in results.items()},
        "new_minus_old": compare(results["new"], results["old"]),
        "samples": [
            {"prompt": question.prompt, **{name: result.texts[number] for name, result in results.items()}}
            for number, question in enumerate(asked[:6])
        ],
    }


def _describe_side(
    train: Sequence[Paper],
    rows: Sequence[dict[str, Any]],
    chosen: Sequence[dict[str, Any]],
    used: Used,
    counter: TokenCounter,
) -> dict[str, Any]:
    """The rows and tokens that a side trained, and how much of the train documents all of its rows teach."""
    answers = [rows_check.answer_text(row) for row in chosen]
    return {
        "all_rows": len(rows),
        "coverage": round(rows_check.word_coverage(train, map(rows_check.answer_text, rows)), 4),
        "rows": len(chosen),
        "tokens": int(used.trained.get("tokens", 0)),
        "answer_tokens": sum(counter.count(answers)),
        "steps": int(used.trained["steps"]),
        "seconds": round(used.seconds, 1),
    }


def split_families(papers: Sequence[Paper]) -> tuple[list[Paper], list[Paper]]:
    """The train documents, and the held-out documents in English with enough words."""
    train, kept = [], []
    for paper in papers:
        draw = hashlib.sha256(" ".join(find_family(Path(paper.name))).encode()).digest()
        if draw[0] % HELD_OUT_EVERY:
            train.append(paper)
        elif paper.language == "en" and len(paper.text.split()) > PART_WORDS + BEFORE_WORDS:
            kept.append(paper)
    return train, kept


def old_rows(papers: Sequence[Paper]) -> list[dict[str, Any]]:
    """The rows of before, as stored rows."""
    rows = (row for paper in papers for row in rows_old.make_rows(paper.document_id, paper.text, paper.source))
    return [
        {"row_id": row.row_id, "messages": _chat(("user", row.prompt), ("assistant", row.completion))} for row in rows
    ]


def new_rows(papers: Sequence[Paper], counter: TokenCounter) -> list[dict[str, Any]]:
    """The rows of today, as stored rows."""
    specialist = Specialist("bench-rows", 1, BASE, "lora", rows=RowPolicy(max_row_tokens=MAX_ROW_TOKENS))
    rows: list[MadeRow] = []
    for paper in papers:
        labels = Labels(source=paper.source, department="bench")
        document = Document(
            paper.document_id, 1, "", Kind.DOCUMENT, labels, Ref("", "", 0), "", paper.language, paper.spans
        )
        rows += make_rows(document, Text(None, paper.text), specialist, counter).rows
    return [{"row_id": row.row_id, "messages": _chat(*row.messages)} for row in rows]


def _chat(*messages: tuple[str, str]) -> list[Message]:
    return [{"role": role, "content": content} for role, content in messages]


def draw_rows(rows: Sequence[dict[str, Any]], counter: TokenCounter, tokens: int) -> list[dict[str, Any]]:
    """Rows by a hash of their ids, until they have this number of tokens; all rows if they have fewer."""
    ordered = sorted(rows, key=lambda row: hashlib.sha256(row["row_id"].encode()).digest())
    chosen: list[dict[str, Any]] = []
    used = 0
    for row in ordered:
        if used >= tokens:
            break
        used += count_tokens(row, counter)
        chosen.append(row)
    return chosen


def count_tokens(row: Mapping[str, Any], counter: TokenCounter) -> int:
    """The tokens of a stored row."""
    texts = [part["content"] for part in row["messages"]]
    has_system = row["messages"][0]["role"] == "system"
    return sum(counter.count(texts)) + counter.template_tokens(texts[int(has_system) :], has_system=has_system)


def _encode(part: HeldOutQuestion, tokenizer: Any) -> Encoded:
    return encode(part.document_id, _chat(("user", part.prompt), ("assistant", part.answer)), tokenizer)


def _house(place: Place, dataset: Ref) -> House:
    return House(place.root, FileStore(place.store), place.base, place.base_folder, dataset, (), [], [])


def _train(
    place: Place, name: str, rows: Sequence[dict[str, Any]], parts: Sequence[HeldOutQuestion], epochs: float
) -> Used:
    kept = [
        {"row_id": f"part_{number}", "messages": _chat(("user", part.prompt), ("assistant", part.answer))}
        for number, part in enumerate(parts)
    ]
    dataset, _ = store_dataset(FileStore(place.store), {TRAIN: rows, HELD_OUT: kept}, specialist="engagement-reports")
    chosen = recipe(
        "lora",
        batch={"tokens": MAX_ROW_TOKENS, "max_length": MAX_ROW_TOKENS, "accumulation": 1},
        limit={"epochs": round(epochs, 3), "max_steps": 0, "max_tokens": 0},
        optimizer={"learning_rate": LEARNING_RATE},
        checkpoint_every_steps=1000,
    )
    return run_worker(_house(place, dataset), name, chosen)


# The forms of each measure.
MEASURES = {"loss": (FILE, SPACED), "fabrication": (LIST, LINE), "facts_used": (LIST, LINE)}


@dataclass(frozen=True)
class Result:
    """A model's results on the held-out documents: for each measure and form, part and whole by document; and the answers.

    These are (loss, tokens), (fabricated values, values of the answer) and (values used, values of the facts).
    """

    pairs: Mapping[tuple[str, str], Mapping[str, Pair]]
    texts: Sequence[str] = ()

    def measures(self) -> dict[str, Mapping[str, Pair]]:
        """The pairs of each measure: its forms together, and each form."""
        return {
            name: part
            for measure, forms in MEASURES.items()
            for name, part in (
                (measure, pool([self.pairs[measure, form] for form in forms])),
                *((f"{measure}_{form}", self.pairs[measure, form]) for form in forms),
            )
        }


class Examination:
    """Asks each model the same questions."""

    def __init__(self, place: Place, parts: Sequence[HeldOutQuestion], asked: Sequence[HeldOutQuestion]) -> None:
        self._place = place
        self._tokenizer = load_tokenizer(place.base_folder)
        self._parts = [(part, _encode(part, self._tokenizer)) for part in parts]
        self._asked = asked
        self._recipe = recipe("lora", precision="f32")

    def of_base(self) -> Result:
        """The results of the base."""
        return self._examine(loading.load_base(self._place.base_folder, self._recipe))

    def of_adapter(self, used: Used) -> Result:
        """The results of the base with a trained adapter."""
        weights = fetch_weights(_house(self._place, Ref("", "", 0)), used)
        return self._examine(model.load_saved(self._place.base_folder, weights, self._recipe, "policy"))

    def _examine(self, asked: Any) -> Result:
        asked.eval()
        pairs: dict[tuple[str, str], dict[str, Pair]] = {}
        for part, row in self._parts:
            probabilities = held_out.answer_log_probabilities(asked, row)
            _add(pairs, "loss", part, (-float(probabilities.sum()), float(len(probabilities))))
        texts = _generate(asked, self._tokenizer, [question.prompt for question in self._asked])
        for question, text in zip(self._asked, texts, strict=True):
            _add(pairs, "fabrication", question, count_values(text, question.prompt))
            _add(pairs, "facts_used", question, count_used(text, question.facts))
        return Result(pairs, texts)


def _add(pairs: dict[tuple[str, str], dict[str, Pair]], measure: str, question: HeldOutQuestion, pair: Pair) -> None:
    documents = pairs.setdefault((measure, question.form), {})
    documents[question.document_id] = add(documents.get(question.document_id, (0.0, 0.0)), pair)


def add(first: Pair, second: Pair) -> Pair:
    """The sums of both parts."""
    return first[0] + second[0], first[1] + second[1]


def count_values(answer: str, prompt: str) -> Pair:
    """The values of an answer that its prompt does not have, and all of its values."""
    return float(len(rows_check.unsupported(answer, prompt, "en"))), float(len(rows_check.values(answer, "en")))


def count_used(answer: str, facts: str) -> Pair:
    """The values of the facts that the answer has, and all of their values."""
    expected = list(dict.fromkeys(rows_check.values(facts, "en")))
    missing = set(rows_check.unsupported(facts, answer, "en"))
    return float(sum(value not in missing for value in expected)), float(len(expected))


def _generate(asked: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Greedy answers, in batches."""
    import torch

    asked.set_attn_implementation("sdpa")
    texts: list[str] = []
    for start in range(0, len(prompts), BATCH):
        batch = tokenizer.apply_chat_template(
            [_chat(("user", prompt)) for prompt in prompts[start : start + BATCH]],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
            tokenizer_kwargs={"padding_side": "left"},
        )
        with torch.no_grad():
            tokens = asked.generate(
                **batch, max_new_tokens=NEW_TOKENS, do_sample=False, repetition_penalty=REPETITION_PENALTY
            )
        texts += tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def summarise(result: Result) -> dict[str, Any]:
    """The measures of a model with their intervals."""
    measures = result.measures()
    words = sum(len(text.split()) for text in result.texts)
    return {
        **{name: _interval(list(pairs.values()), ratio) for name, pairs in measures.items()},
        "values": int(sum(count for _, count in measures["fabrication"].values())),
        "answer_words": round(words / max(1, len(result.texts)), 1),
    }


def compare(new: Result, old: Result) -> dict[str, Any]:
    """The differences of the measures, new minus old, with intervals over the same documents."""
    before = old.measures()
    return {
        name: _interval([(*pairs[key], *before[name][key]) for key in pairs], difference)
        for name, pairs in new.measures().items()
    }


def pool(forms: Iterable[Mapping[str, Pair]]) -> dict[str, Pair]:
    """The sums of several forms, by document."""
    sums: dict[str, Pair] = {}
    for pairs in forms:
        for name, pair in pairs.items():
            sums[name] = add(sums.get(name, (0.0, 0.0)), pair)
    return sums


def ratio(pairs: Sequence[tuple[float, ...]]) -> float:
    """The sum of the first over the sum of the second."""
    return sum(pair[0] for pair in pairs) / max(1.0, sum(pair[1] for pair in pairs))


def difference(pairs: Sequence[tuple[float, ...]]) -> float:
    """The ratio of the first two less that of the last two."""
    return ratio(pairs) - ratio([pair[2:] for pair in pairs])


def _interval(
    pairs: Sequence[tuple[float, ...]], measure: Callable[[Sequence[tuple[float, ...]]], float]
) -> dict[str, float]:
    """The measure, and the 2.5th and 97.5th percentile of its bootstrap samples over documents."""
    draw = random.Random(SEED)
    samples = sorted(measure(draw.choices(pairs, k=len(pairs))) for _ in range(SAMPLES)) if pairs else [0.0]
    low, high = samples[len(samples) * 25 // 1000], samples[-1 - len(samples) * 25 // 1000]
    return {"value": round(measure(pairs), 4), "low": round(low, 4), "high": round(high, 4)}
