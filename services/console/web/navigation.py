"""The navigation: groups of pages by what people come for, of which a visitor sees those that they may open."""

from dataclasses import dataclass

from services.console.domain import Permission, Role, Visitor

GROUPS = {
    "Overview": (
        ("/flow", "Flow", Permission.FLOW),
        ("/specialists", "Specialists", Permission.SPECIALISTS),
        ("/decisions", "Decisions", Permission.AUDIT),
    ),
    "Documents": (
        ("/documents", "Documents", Permission.DOCUMENTS),
        ("/documents/rejected", "Rejected", Permission.DOCUMENTS),
        ("/documents/own", "By your id", Permission.SUBMISSIONS),
        ("/audit", "Audit", Permission.AUDIT),
    ),
    "Protection": (
        ("/review", "Review", Permission.REVIEW),
        ("/residual", "Residual", Permission.RESIDUAL),
        ("/replaced", "Replaced most", Permission.RESIDUAL),
        ("/erasures", "Erasures", Permission.ERASURES),
    ),
    "Training": (
        ("/datasets", "Datasets", Permission.DATASETS),
        ("/syntheses", "Syntheses", Permission.SYNTHESES),
        ("/runs", "Runs", Permission.RUNS),
        ("/adapters", "Adapters", Permission.ADAPTERS),
        ("/approvals", "Approvals", Permission.ADAPTERS),
        ("/bases", "Bases", Permission.RUNS),
    ),
    "Answers": (
        ("/judge", "Judge", Permission.JUDGE),
        ("/ask", "Ask", Permission.ASK),
        ("/drafts", "Drafts", Permission.TRACE),
    ),
    "Access": (
        ("/people", "People", Permission.PEOPLE),
        ("/keys", "Keys", Permission.KEYS),
    ),
}
# Rejected submissions belong to no specialist, and only somebody with a key or an invitation judges.
NEEDS_ALL_SPECIALISTS, NEEDS_ID = "/documents/rejected", "/judge"
# Pages that other pages lead to, with the page of the navigation that they belong to.
PARENTS = {"/evaluations": "/adapters", "/new-specialist": "/specialists"}
MAIN_PAGES = {Role.EXPERT: "/judge", Role.DATA_PROTECTION: "/review"}


@dataclass(frozen=True)
class PageLink:
    """A link of the navigation. `current` is the value of `aria-current`, empty if the visitor is elsewhere."""

    path: str
    title: str
    current: str = ""


@dataclass(frozen=True)
class Navigation:
    """The groups, and the pages of the group that the visitor is in. A group of one page is that page."""

    groups: tuple[PageLink, ...] = ()
    pages: tuple[PageLink, ...] = ()


def make_navigation(visitor: Visitor, path: str) -> Navigation:
    """The navigation of a visitor who is at the path. With one group only, its pages take the place of the groups."""
    groups = _list_groups(visitor)
    current = _find_current([target for pages in groups.values() for target, _ in pages], path)
    links = {
        title: tuple(PageLink(target, name, "page" if target == current else "") for target, name in pages)
        for title, pages in groups.items()
    }
    if len(links) == 1:
        return Navigation(*links.values())
    is_in = {title: any(link.current for link in pages) for title, pages in links.items()}
    return Navigation(
        tuple(
            pages[0] if len(pages) == 1 else PageLink(pages[0].path, title, "true" if is_in[title] else "")
            for title, pages in links.items()
        ),
        next((pages for title, pages in links.items() if is_in[title] and len(pages) > 1), ()),
    )


def find_main_page(visitor: Visitor) -> str:
    """Where the console opens: the role's own work, or the first page of the navigation."""
    return MAIN_PAGES.get(visitor.role) or next(iter(_list_groups(visitor).values()))[0][0]


def _list_groups(visitor: Visitor) -> dict[str, list[tuple[str, str]]]:
    """The path and title of each page that the visitor may open, by group."""
    groups = {
        title: [(path, name) for path, name, action in pages if _may_open(visitor, path, action)]
        for title, pages in GROUPS.items()
    }
    return {title: pages for title, pages in groups.items() if pages}


def _may_open(visitor: Visitor, path: str, action: Permission) -> bool:
    if path == NEEDS_ALL_SPECIALISTS and visitor.specialists:
        return False
    if path == NEEDS_ID and not visitor.key_id:
        return False
    return visitor.may(action)


def _find_current(targets: list[str], path: str) -> str:
    """The target that the path is at or below, the longest if there are several; empty if there is none."""
    first, _, rest = path[1:].partition("/")
    path = f"{PARENTS.get(f'/{first}', f'/{first}')}/{rest}/"
    return max((target for target in targets if path.startswith(f"{target}/")), key=len, default="")
