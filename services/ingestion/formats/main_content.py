"""The main content of a web page: what is left without navigation, headers, footers, sidebars and lists of contents.

A block of links is removed if trafilatura does not count it as content. Other text is removed only within the elements that HTML has for
what stands around the content.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import trafilatura
from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PreformattedString
from lxml import etree

# What HTML calls a part of a page. Within the content, a header, a footer or an aside belongs to it.
NAVIGATION = ("nav", "menu")
AROUND = ("header", "footer", "aside")
AROUND_ROLES = frozenset({"navigation", "search", "banner", "contentinfo", "complementary"})
AROUND_NAMES = frozenset(
    {
        "footer",
        "navbar",
        "navheader",
        "navfooter",
        "navigation",
        "breadcrumb",
        "breadcrumbs",
        "page-header",
        "site-header",
    }
)
CONTENT = ("main", "article", "blockquote")
TITLES = ("h1", "h2")
HEADINGS = (*TITLES, "h3", "h4", "h5", "h6")
# Links of headings to themselves.
ANCHORS = ("¶", "#", "§", "🔗")
LINK_BLOCKS = frozenset({"div", "section", "ul", "ol", "dl", "table", "p", "form", "center"})
STEP_BLOCKS = LINK_BLOCKS | {"tr", "td", "li", "dd", "span"}
CONTENTS_NAMES = frozenset({"toc", "contents", "toctree-wrapper", "toclist", "table-of-contents"})
# Links of a manual's page to its neighbours and to itself in other languages. Together with a title, they are a short line.
STEP_RELATIONS = frozenset({"prev", "previous", "next", "up", "home", "start", "contents", "alternate"})
STEP_KEYS = frozenset("npuh")
INLINE_PARENTS = ("p", "li", "dd", "td", *HEADINGS)
STEP_NAMES = frozenset({"prev", "previous", "next", "previous_page", "next_page"})
STEP_TEXTS = frozenset(
    {
        *("home", "prev", "previous", "next", "up", "zurück", "weiter", "suivant", "précédent", "accueil"),
        *("anterior", "siguiente", "inicio", "precedente", "successivo", "vorige", "volgende"),
    }
)
MAX_ARROW = 3
MAX_STEP_CHARS = 400
# Navigation and lists of contents have at least this share of their characters in links, and this many links.
LINK_DENSITY = 0.5
FEWEST_LINKS = 3
# A table with this many rows of several cells is content, also if most of its cells are links.
MANY_ROWS = 3
# Of the characters outside links, at least this share stays.
LEAST_SHARE = 0.2
# The library needs seconds for a larger page.
MAX_CHARS = 1_000_000


@dataclass
class Counts:
    """Characters but blanks of an element, those in links, its links, and those of them that lead to neighbours, that lead to a place
    in the page, and that the library keeps; its titles, its headings (titles among them), and its rows of several cells."""

    chars: int = 0
    linked: int = 0
    links: int = 0
    steps: int = 0
    inner: int = 0
    kept: int = 0
    titles: int = 0
    headings: int = 0
    rows: int = 0

    @property
    def plain(self) -> int:
        """Characters outside links."""
        return self.chars - self.linked

    def add(self, child: "Counts") -> None:
        """Add the counts of a child."""
        self.chars += child.chars
        self.linked += child.linked
        self.links += child.links
        self.steps += child.steps
        self.inner += child.inner
        self.kept += child.kept
        self.titles += child.titles
        self.headings += child.headings
        self.rows += child.rows


def remove_boilerplate(soup: BeautifulSoup) -> Counter[str]:
    """Remove what is not the page's content. Returns the removed characters but blanks, by kind: `navigation`, `contents`.

    Of a page that would lose nearly all its text, nothing is removed.
    """
    body = soup.body or soup
    removed: Counter[str] = Counter()
    for find in (_find_around, _find_steps, _find_link_blocks):
        counts = _count(body)
        blocks = find(body, counts)
        lost = sum(counts[id(block)].plain for block, _ in blocks)
        if counts[id(body)].plain - lost < max(1, LEAST_SHARE * counts[id(body)].plain):
            continue
        for block, kind in blocks:
            removed[kind] += counts[id(block)].chars
            _remove(body, block)
    return +removed


def _count(body: Tag, kept: frozenset[int] = frozenset()) -> dict[int, Counts]:
    """The counts of all elements by their `id`; `kept` are the ids of links that the library keeps."""
    elements = [body, *body.find_all(True)]
    counts = {id(element): Counts() for element in elements}
    for text in body.find_all(string=True):
        if not isinstance(text, PreformattedString) and text.parent is not None:
            counts[id(text.parent)].chars += sum(map(len, text.split()))
    for element in reversed(elements):
        own = counts[id(element)]
        own.titles += element.name in TITLES
        own.headings += element.name in HEADINGS
        own.rows += (
            element.name == "tr"
            and sum(counts[id(cell)].chars > 0 for cell in element(("td", "th"), recursive=False)) > 1
        )
        if element.name == "a" and element.get("href"):
            own.linked, own.links = own.chars, 1
            own.steps, own.inner = int(_is_step(element)), int(str(element["href"]).startswith("#"))
            own.kept = int(id(element) in kept)
        if element is not body and element.parent is not None:
            counts[id(element.parent)].add(own)
    return counts


def _is_step(link: Tag) -> bool:
    marks = ((STEP_RELATIONS, "rel"), (STEP_KEYS, "accesskey"), (STEP_NAMES, "class"))
    if any(not names.isdisjoint(_values(link, attribute)) for names, attribute in marks):
        return True
    # What the link shows decides only if it leads to another page: an index may have the word.
    text = link.get_text(strip=True).strip("[]").casefold()
    is_arrow = 0 < len(text) <= MAX_ARROW and not any(map(str.isalnum, text))
    return not str(link["href"]).startswith("#") and (is_arrow or text in STEP_TEXTS)


def _values(element: Tag, *names: str) -> list[str]:
    """The words of attributes in small letters. The parser has a list for some, such as `class`, and a string for others."""
    values = [element.get(name) or "" for name in names]
    return " ".join(value if isinstance(value, str) else " ".join(value) for value in values).lower().split()


def _outermost(body: Tag, is_wanted: Callable[[Tag], str]) -> list[tuple[Tag, str]]:
    """The elements for which `is_wanted` returns a kind, without those inside another one."""
    found, inside = [], set[int]()
    for element in body.find_all(True):
        if id(element.parent) in inside:
            inside.add(id(element))
        elif kind := is_wanted(element):
            found.append((element, kind))
            inside.add(id(element))
    return found


def _find_around(body: Tag, counts: dict[int, Counts]) -> list[tuple[Tag, str]]:
    """Elements that HTML has for navigation and for what stands around the content."""
    del counts

    def kind(element: Tag) -> str:
        if element.name in NAVIGATION or (element.name == "a" and element.get_text(strip=True) in ANCHORS):
            return "navigation"
        is_around = (
            element.name in AROUND
            or not AROUND_ROLES.isdisjoint(_values(element, "role"))
            or not AROUND_NAMES.isdisjoint(_values(element, "class", "id"))
        )
        return "navigation" if is_around and element.find_parent(_is_content) is None else ""

    return _outermost(body, kind)


def _is_content(element: Tag) -> bool:
    return element.name in CONTENT or "main" in _values(element, "role")


def _find_steps(body: Tag, counts: dict[int, Counts]) -> list[tuple[Tag, str]]:
    """Lines of links to neighbouring pages, as manuals have them."""

    def kind(element: Tag) -> str:
        own = counts[id(element)]
        if element.name == "a" and own.steps and element.find_parent(INLINE_PARENTS) is None:
            return "navigation"
        is_bar = own.steps > 1 or (own.steps == 1 and own.linked >= LINK_DENSITY * own.chars)
        fits = element.name in STEP_BLOCKS and not own.headings and own.chars <= MAX_STEP_CHARS
        return "navigation" if fits and is_bar else ""

    return _outermost(body, kind)


def _find_link_blocks(body: Tag, counts: dict[int, Counts]) -> list[tuple[Tag, str]]:
    """Blocks of links that the library does not count as content."""
    links = [
        link
        for block, _ in _outermost(body, lambda element: "links" * _is_candidate(element, counts))
        for link in block.find_all("a", href=True)
    ]
    kept = _ask_library(body, links) if links else None
    if kept is None:
        return []
    judged = _count(body, kept)

    def kind(element: Tag) -> str:
        own = judged[id(element)]
        if not _is_candidate(element, judged) or 2 * own.kept > own.links:
            return ""
        return "contents" if 2 * own.inner > own.links or _is_contents(element) else "navigation"

    return _outermost(body, kind)


def _is_candidate(element: Tag, counts: dict[int, Counts]) -> bool:
    own = counts[id(element)]
    is_dense = own.linked >= LINK_DENSITY * own.chars and own.links >= (1 if _is_contents(element) else FEWEST_LINKS)
    return element.name in LINK_BLOCKS and is_dense and not own.titles and own.rows < MANY_ROWS


def _is_contents(element: Tag) -> bool:
    return not CONTENTS_NAMES.isdisjoint(_values(element, "class", "id"))


def _ask_library(body: Tag, links: list[Tag]) -> frozenset[int] | None:
    """The ids of the links that trafilatura keeps; None if it finds no content, or the page is too large for it.

    Each link is marked for this by a word that the page does not have, so that it is found in the library's text.
    """
    page = str(body)
    if len(page) > MAX_CHARS:
        return None
    sign = next(sign for sign in (f"q{number}x" for number in range(len(page))) if sign not in page)
    marks = [NavigableString(f" {sign}{number}{sign} ") for number in range(len(links))]
    for link, mark in zip(links, marks, strict=True):
        link.append(mark)
    try:
        text = trafilatura.extract(
            f"<html>{body}</html>", fast=True, favor_recall=True, include_comments=True, deduplicate=False
        )
    except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError, etree.LxmlError):
        text = None
    for mark in marks:
        mark.extract()
    if text is None:
        return None
    return frozenset(id(links[int(number)]) for number in re.findall(f"{sign}([0-9]+){sign}", text))


def _remove(body: Tag, block: Tag) -> None:
    """Remove a block. The title of a page whose header has its only one stays."""
    title = block.find("h1")
    if title is not None and len(body.find_all("h1", limit=2)) == 1:
        block.insert_before(title)
    block.extract()
