"""What the rows teach: the small base trained on the rows of before, and on those of today, of the same documents.

Both sides train the same number of tokens by the real worker with the same recipe, on rows that a fixed draw takes from all rows of the train documents of the
dataset. The held-out documents of that dataset stand in neither. On them:

- `loss`: the mean loss per token of parts of the documents, as answers to a prompt with the title and the words before (no side trains this wording).
- `fabrication`: of the numbers, and of the capitalised words inside a sentence, of the answers to prompts with a list of facts: the share that the prompt does not have.

Intervals are of 95 %, by 2,000 bootstrap samples of documents.
"""

import hashlib
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import rows_check, rows_old
from bench.rows_corpus import BASE
from bench.rows_measure import Place
from bench.rows_texts import Paper
from bench.training_house import House, Used, fetch_weights, recipe, run_worker
from services.synthetic.adapters.tokenizers import StoredTokenizers
from services.synthetic.domain import Document, Kind, Specialist, Text
from services.synthetic.domain import Row as MadeRow
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.document_rows import make_rows
from services.training.bases.files import load_tokenizer
from services.training.methods import held_out, loading, model
from services.training.methods.rows import Encoded, encode
from tailor.datasets import HELD_OUT, TRAIN
from tailor.storage.ref import Ref
from tailor.words import Labels, RowPolicy
from tests.datasets import store_dataset
from tests.unit.training.stores import FileStore

MAX_ROW_TOKENS = 1024
LEARNING_RATE = 2e-3
PARTS, PART_WORDS, BEFORE_WORDS = 3, 160, 60
NEW_TOKENS, BATCH, REPETITION_PENALTY = 96, 8, 1.05
FACTS, FACT_WORDS = 6, 12
SAMPLES, SEED = 2_000, 7

Message = dict[str, str]
Pairs = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class HeldOutQuestion:
    """A prompt about a document."""

    document_id: str
    prompt: str
    answer: str = ""


def measure(place: Place, papers: Sequence[Paper], manifest: str, tokens: int, documents: int) -> dict[str, Any]:
    """Train both sides and compare them with each other and with the base, on this number of held-out documents."""
    train, kept = _sides(place, papers, manifest)
    kept = kept[:documents]
    store = FileStore(place.store)
    counter = StoredTokenizers(store).for_base(BASE)
    rows = {"old": old_rows(train), "new": new_rows(train, counter)}
    parts, asked = [part for paper in kept for part in make_parts(paper)], make_questions(kept)
    tokenizer = load_tokenizer(place.base_folder)
    encoded = [(part.document_id, _encode(part, tokenizer)) for part in parts]
    f32 = recipe("lora", precision="f32")
    results = {"base": _answers_of(loading.load_base(place.base_folder, f32), tokenizer, encoded, asked)}
    sides: dict[str, Any] = {}
    for name, made in rows.items():
        print(f"training on the {name} rows", file=sys.stderr)
        chosen = draw_rows(made, counter, tokens)
        # Once through the rows, which have the tokens; more often if there are too few rows.
        epochs = max(1.0, tokens / sum(count_tokens(row, counter) for row in chosen))
        used = _train(place, name, chosen, parts, epochs)
        trained = model.load_saved(place.base_folder, fetch_weights(_house(place, Ref("", "", 0)), used), f32, "policy")
        results[name] = _answers_of(trained, tokenizer, encoded, asked)
        sides[name] = {
            "all_rows": len(made),
            "coverage": round(rows_check.word_coverage(train, map(rows_check.answer_text, made)), 4),
            "rows": len(chosen),
            "tokens": int(used.trained.get("tokens", 0)),
            "steps": int(used.trained["steps"]),
            "seconds": round(used.seconds, 1),
        }
    figures = {name: {**sides.get(name, {}), **summarise(result)} for name, result in results.items()}
    return {
        "train_documents": len(train),
        "held_out_documents": len(kept),
        "parts": len(parts),
        "questions": len(asked),
        **figures,
        "new_minus_old": compare(results["new"], results["old"]),
        "samples": [
            {"prompt": question.prompt, **{name: result.texts[number] for name, result in results.items()}}
            for number, question in enumerate(asked[:4])
        ],
    }


def _sides(place: Place, papers: Sequence[Paper], manifest: str) -> tuple[list[Paper], list[Paper]]:
    """The train documents, and held-out documents in English with enough words, by a hash."""
    stored = rows_check.StoredRows.of(place.store, manifest)
    train, kept = (
        {name for answers in stored.answers(split) for name in answers.documents} for split in (TRAIN, HELD_OUT)
    )
    long = [paper for paper in papers if paper.language == "en" and len(paper.text.split()) > PART_WORDS + BEFORE_WORDS]
    chosen = [paper for paper in long if paper.document_id in kept - train]
    return [paper for paper in papers if paper.document_id in train - kept], chosen


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


def make_parts(paper: Paper) -> list[HeldOutQuestion]:
    """Parts of a document, evenly spread, each as the answer to its title and the words before it."""
    words = paper.text.split(" ")
    last = len(words) - PART_WORDS
    starts = sorted({max(BEFORE_WORDS, last * number // PARTS) for number in range(1, PARTS + 1)})
    title = _title(paper)
    return [
        HeldOutQuestion(
            paper.document_id,
            f'Continue the document "{title}". It goes on after these words:\n\n{" ".join(words[start - BEFORE_WORDS : start])}',
            # An answer that begins with a line break would share a token with the template's own.
            " ".join(words[start : start + PART_WORDS]).strip(),
        )
        for start in starts
        if "".join(words[start : start + PART_WORDS]).strip()
    ]


def _title(paper: Paper) -> str:
    return next(line.strip("# *=-") for line in paper.text.split("\n") if line.strip("# *=-"))[:80]


def make_questions(papers: Sequence[Paper]) -> list[HeldOutQuestion]:
    """A prompt with facts for each document that has at least three."""
    questions = []
    for paper in papers:
        facts = find_facts(paper.text)
        if len(facts) > 2:
            listed = "\n".join(f"- {fact}" for fact in facts)
            prompt = f'Write a paragraph for the document "{_title(paper)}". Use these facts and no others:\n{listed}'
            questions.append(HeldOutQuestion(paper.document_id, prompt))
    return questions


def find_facts(text: str) -> list[str]:
    """Short sentences with a number or a name, from the middle of a text on."""
    plain = " ".join(text[len(text) // 3 :].split())
    sentences = [part.strip() for part in plain.replace(": ", ". ").split(". ")]
    return [part for part in sentences if 4 <= len(part.split()) <= FACT_WORDS and rows_check.values(part, "en")][
        :FACTS
    ]


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


@dataclass(frozen=True)
class Result:
    """A model's results on the held-out documents, by document: (loss, tokens), and (fabricated values, values)."""

    losses: Mapping[str, tuple[float, float]]
    values: Mapping[str, tuple[float, float]]
    texts: Sequence[str]


def _answers_of(
    asked: Any, tokenizer: Any, encoded: Sequence[tuple[str, Encoded]], questions: Sequence[HeldOutQuestion]
) -> Result:
    asked.eval()
    losses: dict[str, tuple[float, float]] = {}
    for document_id, row in encoded:
        known = losses.get(document_id, (0.0, 0.0))
        probabilities = held_out.answer_log_probabilities(asked, row)
        losses[document_id] = (known[0] - float(probabilities.sum()), known[1] + len(probabilities))
    texts = _generate(asked, tokenizer, [question.prompt for question in questions])
    return Result(
        losses,
        {
            question.document_id: count_values(text, question.prompt)
            for question, text in zip(questions, texts, strict=True)
        },
        texts,
    )


def count_values(answer: str, prompt: str) -> tuple[float, float]:
    """The values of an answer that its prompt does not have, and all of its values."""
    return float(len(rows_check.unsupported(answer, prompt, "en"))), float(len(rows_check.values(answer, "en")))


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
    """Both measures of a model with their intervals."""
    losses, values = list(result.losses.values()), list(result.values.values())
    words = sum(len(text.split()) for text in result.texts)
    return {
        "loss": _interval(losses, ratio),
        "fabrication": _interval(values, ratio),
        "values": int(sum(count for _, count in values)),
        "answer_words": round(words / max(1, len(result.texts)), 1),
    }


def compare(new: Result, old: Result) -> dict[str, Any]:
    """The differences of both measures, new minus old, with intervals over the same documents."""
    measures = {"loss": (new.losses, old.losses), "fabrication": (new.values, old.values)}
    return {
        name: _interval([(*first[key], *second[key]) for key in first], difference)
        for name, (first, second) in measures.items()
    }


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


def plot_sides(figures: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float], Mapping[str, float]]]:
    """Name, loss and fabrication of the base and of both sides."""
    return [(name, figures[name]["loss"], figures[name]["fabrication"]) for name in ("base", "old", "new")]
