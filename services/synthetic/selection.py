"""Which documents stand for their near-duplicates, which side of the split they are on, and which rows fit the budget."""

from collections.abc import Iterable, Mapping, Sequence

from services.synthetic.domain import Assignment, Row, fingerprint
from services.synthetic.rows import row_text

HUMAN = "human"


def is_held_out(cluster_id: str, percent: int) -> bool:
    """The fixed side of a cluster: a hash of its id."""
    return int(fingerprint("split", cluster_id)[:8], 16) % 100 < percent


def new_assignments(
    groups: Iterable[frozenset[str]], known: Mapping[str, Assignment], percent: int
) -> dict[str, Assignment]:
    """Assignments of documents that have none. A newcomer joins the oldest known cluster of its group; otherwise the group's lowest id
    names a new one. Known assignments never change."""
    made: dict[str, Assignment] = {}
    for group in groups:
        clusters = sorted({known[member].cluster_id for member in group if member in known})
        cluster = clusters[0] if clusters else min(group)
        held_out = next((a.held_out for a in known.values() if a.cluster_id == cluster), is_held_out(cluster, percent))
        made.update({member: Assignment(member, cluster, held_out) for member in sorted(group) if member not in known})
    return made


def representatives(document_ids: Iterable[str], assignments: Mapping[str, Assignment]) -> list[str]:
    """One document of each cluster: the one that names it, or the lowest id where that one is not there."""
    chosen: dict[str, str] = {}
    for document_id in sorted(document_ids):
        cluster = assignments[document_id].cluster_id
        if cluster not in chosen or document_id == cluster:
            chosen[cluster] = document_id
    return sorted(chosen.values())


def split_rows(rows: Sequence[Row], assignments: Mapping[str, Assignment]) -> tuple[list[Row], list[Row]]:
    """Train and held-out rows by id, each text once; no text of a held-out row is in train."""
    held_out = _unique(row for row in rows if any(assignments[d].held_out for d in row.document_ids))
    texts = {row_text(row) for row in held_out}
    train = _unique(row for row in rows if not any(assignments[d].held_out for d in row.document_ids))
    return [row for row in train if row_text(row) not in texts], held_out


def within_budget(rows: Sequence[Row], max_tokens: int) -> list[Row]:
    """The rows by id, as many as the budget of estimated tokens takes: human ones always, the others in the order of a hash."""
    kept = [row for row in rows if row.made_by == HUMAN]
    used = sum(row.tokens for row in kept)
    for row in sorted((row for row in rows if row.made_by != HUMAN), key=lambda row: fingerprint("budget", row.row_id)):
        if used + row.tokens <= max_tokens:
            kept.append(row)
            used += row.tokens
    return sorted(kept, key=lambda row: row.row_id)


def _unique(rows: Iterable[Row]) -> list[Row]:
    found: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.row_id):
        found.setdefault(row_text(row), row)
    return sorted(found.values(), key=lambda row: row.row_id)
