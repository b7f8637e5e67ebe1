"""Quality and speed of the barrier compared with plain Presidio with the same spaCy model: `make bench-anonymization`.

Quality counts characters other than spaces, and ignores types. Types that the default policy keeps (places, dates, nationalities) count on
neither side. Speed is measured on texts in which a third of the paragraphs repeat; the two sides alternate.
"""

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import tldextract
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NlpEngineProvider

from bench import anonymization_sets as others
from bench.anonymization_measures import Place, Tally, false_alarms
from bench.anonymization_page import render, write_section
from bench.generated import Gold, generate
from bench.gold import read_sample, read_snippets
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.recognise.detectors.definition import DetectorKind, load_detectors
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.recognise.obfuscated import undo

ROOT = Path(__file__).parents[1]
REPORT = ROOT / ".tailor" / "bench" / "anonymization.json"
KEPT = ("DATE_TIME", "LOCATION", "NRP", "URL", "AGE")
DRAWS = 2
SPEED_SEED = 77_000
ROUNDS = 6
REPLICA_ROUNDS = 3
REPEATED = 12
PARAGRAPHS = 6

Find = Callable[[str], list[Place]]


def ours(language: str = "en") -> Find:
    """The barrier's detectors with all mentions."""
    analyzer = Analyzer.load(load_detectors(), load_policy(), language)
    mentions = Mentions(analyzer.lexicon)

    def find(text: str) -> list[Place]:
        plain = undo(text)
        findings = mentions.complete(plain.text, analyzer.find(plain.text), analyzer.policy.find_allowed(plain.text))
        return [plain.place(finding.start, finding.end) for finding in findings]

    return find


def model_of(language: str) -> str:
    """The spaCy model of the default detectors for a language; empty if there is none."""
    readers = (detector for detector in load_detectors() if detector.languages == (language,))
    return next((detector.model for detector in readers if detector.kind is DetectorKind.SPACY), "")


def plain(language: str = "en") -> Find:
    """Presidio with its predefined recognisers and the same model."""
    configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model_of(language)}]}
    # Its mail recogniser would wait for a list of domains from the network.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
    tldextract.extract = tldextract.tldextract.TLD_EXTRACTOR  # type: ignore[assignment]  # the module has a function that calls this object
    engine = AnalyzerEngine(
        nlp_engine=NlpEngineProvider(nlp_configuration=configuration).create_engine(), supported_languages=[language]
    )

    def find(text: str) -> list[Place]:
        results = engine.analyze(text=text, language=language)
        return [(result.start, result.end) for result in results if result.entity_type not in KEPT]

    return find


def english_sets() -> dict[str, list[Gold]]:
    """Texts written here first, then those by other hands."""
    generated = [gold for gold in generate(DRAWS) if gold.language == "en"]
    sample = read_sample()
    sets = {
        "all": sample + generated,
        "sample": sample,
        "generated": generated,
        "tuned": [gold for gold in read_snippets("tuned") if gold.language == "en"],
        "unseen": [gold for gold in read_snippets("unseen") if gold.language == "en"],
    }
    if others.has_generator():
        sentences = others.presidio_sentences()
        sets["others: Presidio's generator"] = sentences
        sets["others: the same in capitals"] = others.in_capitals(sentences[::3])
    return sets | {
        "others: names of change logs": others.changelog_prose(),
        "others: those names in small letters": others.changelog_prose(small=True),
        "others: values with a form": others.numbers(),
    }


def measure_quality(sets: dict[str, list[Gold]], sides: dict[str, Find]) -> dict[str, dict[str, Any]]:
    """Figures of the sides on each set; `all` is the sample and the generated set together."""
    answers: dict[tuple[str, str], list[Place]] = {}
    figures: dict[str, dict[str, Any]] = {}
    for name, golds in sets.items():
        tallies = {side: Tally() for side in sides}
        for gold in golds:
            for side, find in sides.items():
                key = side, gold.text
                answers[key] = answers[key] if key in answers else find(gold.text)
                tallies[side].add(gold, answers[key])
        figures[name] = {side: tally.figures() for side, tally in tallies.items()}
    return figures


def measure_german() -> dict[str, dict[str, Any]]:
    """Only our side: there is no German model for plain Presidio."""
    sets = {
        "generated, German": [gold for gold in generate(DRAWS) if gold.language == "de"],
        "unseen, German": [gold for gold in read_snippets("unseen") if gold.language == "de"],
    }
    return measure_quality(sets, {"ours": ours("de")})


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


def _alternate(texts: Sequence[str]) -> dict[int, list[float]]:
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


def _figures(sides: dict[str, Find]) -> Iterator[tuple[str, Any]]:
    sets = measure_quality(english_sets(), sides) | measure_german()
    speed = measure_speed(sides)
    yield from sets["all"]["ours"].items()
    yield from speed["ours"].items()
    yield "plain_presidio", sets["all"]["plain"] | speed["plain"]
    yield "speed_ratio", round(speed["ours"]["documents_per_s"] / speed["plain"]["documents_per_s"], 2)
    yield "cpu_ratio", round(speed["plain"]["cpu_s"] / speed["ours"]["cpu_s"], 2)
    pages = list(others.manuals())
    yield "manuals", {side: false_alarms(pages, find) for side, find in sides.items()}
    yield "replica_ratio", measure_replicas()
    yield "cores", os.cpu_count()
    yield "sets", sets


def main() -> None:
    """Measure, print, and write the report and the page."""
    report = dict(_figures({"ours": ours(), "plain": plain()}))
    table = render(report)
    print(table)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_section(table)


_replica: dict[str, Find] = {}


def _load_replica() -> None:
    _replica["find"] = ours()


def _wait(seconds: float) -> None:
    time.sleep(seconds)


def _find_in_replica(text: str) -> int:
    return len(_replica["find"](text))


if __name__ == "__main__":
    main()
