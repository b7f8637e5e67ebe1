"""Joins documents that share passages to components, and decides each component's side of the split."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.synthetic.corpus import Link
from tailor.rounds import split_draw


@dataclass(slots=True)
class LinkedDocuments:
    """Documents that share near-duplicate passages: those without an assignment, and the sides of the others."""

    component_id: str
    new: list[str] = field(default_factory=list)
    sides: frozenset[bool] = frozenset()

    @property
    def known_side(self) -> bool | None:
        """The side that its earlier documents have; None if it has none.

        If it joins both sides, the new documents are held out: the 13-gram check then removes their rows, and no earlier row.
        """
        return any(self.sides) if self.sides else None

    @property
    def draw(self) -> int:
        """A fixed draw, 0 to 99. It is held out if it is below the share of the specialist."""
        return split_draw(self.component_id)


def group_components(unassigned: Sequence[str], links: Iterable[Link]) -> list[LinkedDocuments]:
    """The components of the unassigned documents, in the order of their first documents.

    A component keeps the id of its earlier documents, the lowest if there are several; a new one has the id of its first document.
    """
    forest, known = _Forest(), dict[str, Link]()
    first: dict[int, str] = {}
    for link in links:
        forest.join(first.setdefault(link.cluster_id, link.document_id), link.document_id)
        if link.component_id:
            known[link.document_id] = link
    components: dict[str, LinkedDocuments] = {}
    for document_id in unassigned:
        components.setdefault(forest.root(document_id), LinkedDocuments(document_id)).new.append(document_id)
    _add_known(components, known, forest)
    return list(components.values())


def _add_known(components: dict[str, LinkedDocuments], known: dict[str, Link], forest: "_Forest") -> None:
    component_ids: dict[str, str] = {}
    for document_id, link in known.items():
        root = forest.root(document_id)
        if root in components:
            components[root].sides |= {link.held_out}
            component_ids[root] = min(component_ids.get(root, link.component_id), link.component_id)
    for root, component_id in component_ids.items():
        components[root].component_id = component_id


class _Forest:
    """Union-find with path halving."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, key: str) -> str:
        while self._parent.get(key, key) != key:
            above = self._parent[key]
            self._parent[key] = self._parent.get(above, above)
            key = self._parent[key]
        return key

    def join(self, first: str, other: str) -> None:
        above, below = self.root(first), self.root(other)
        if above != below:
            self._parent[below] = above
