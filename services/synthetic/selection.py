"""Chooses representatives of near-duplicates, the side of the split, and the rows that fit the budget."""

from collections.abc import Iterable, Mapping, Sequence

from services.synthetic.domain import Assignment, Row, fingerprint, is_held_out
from services.synthetic.rows.structure import words

HUMAN = "human"


def assign_clusters(
    groups: Iterable[frozenset[str]], known: Mapping[str, Assignment], percent: int
) -> dict[str, Assignment]:
    """Assign the documents that have no assignment yet. Known assignments never change.

    A document joins the lowest known cluster of its group; without one, the group's lowest id names a new cluster.
    """
    new: dict[str, Assignment] = {}
    for group in groups:
        clusters = sorted({known[member].cluster_id for member in group if member in known})
        cluster = clusters[0] if clusters else min(group)
        held_out = next((a.held_out for a in known.values() if a.cluster_id == cluster), is_held_out(cluster, percent))
        new.update({member: Assignment(member, cluster, held_out) for member in sorted(group) if member not in known})
    return new


def choose_representatives(document_ids: Iterable[str], assignments: Mapping[str, Assignment]) -> list[str]:
    """One document of each cluster: the one that names it, or else the lowest id."""
    chosen: dict[str, str] = {}
    for document_id in sorted(document_ids):
        cluster = assignments[document_id].cluster_id
        if cluster not in chosen or document_id == cluster:
            chosen[cluster] = document_id
    return sorted(chosen.values())


def split_rows(rows: Sequence[Row], assignments: Mapping[str, Assignment]) -> tuple[list[Row], list[Row]]:
    """Train and held-out rows, sorted by id, each answer once. No answer of a held-out row is in train."""
    held_out = _unique(row for row in rows if any(assignments[d].held_out for d in row.document_ids))
    answers = {_answer_words(row) for row in held_out}
    train = _unique(row for row in rows if not any(assignments[d].held_out for d in row.document_ids))
    return [row for row in train if _answer_words(row) not in answers], held_out


def fit_budget(rows: Sequence[Row], max_tokens: int) -> list[Row]:
    """The rows within a budget of estimated tokens, sorted by id: all human rows, then others in the order of a hash."""
    chosen = [row for row in rows if row.made_by == HUMAN]
    used = sum(row.tokens for row in chosen)
    for row in sorted((row for row in rows if row.made_by != HUMAN), key=lambda row: fingerprint("budget", row.row_id)):
        if used + row.tokens <= max_tokens:
            chosen.append(row)
            used += row.tokens
    return sorted(chosen, key=lambda row: row.row_id)


def _unique(rows: Iterable[Row]) -> list[Row]:
    unique: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.row_id):
        unique.setdefault(_answer_words(row), row)
    return sorted(unique.values(), key=lambda row: row.row_id)


def _answer_words(row: Row) -> str:
    """Two rows with equal words in their answers teach the same."""
    return " ".join(words(row.completion))
