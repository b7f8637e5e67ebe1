"""The links of each role, and the page at which the console opens."""

import re
from collections.abc import Mapping

import pytest
from fastapi.testclient import TestClient

from services.console.domain import Role, Visitor
from services.console.web.navigation import GROUPS, PageLink, make_navigation
from tests.unit.console.messages import ADAPTER, KEY, NAME
from tests.unit.console.world import PASSWORD, World, sign_in

# The pages that each role finds, by group.
FOUND: Mapping[Role, Mapping[str, list[str]]] = {
    Role.CALLER: {"Answers": ["/ask", "/drafts"]},
    Role.EXPERT: {
        "Overview": ["/specialists"],
        "Training": ["/syntheses", "/adapters", "/approvals"],
        "Answers": ["/judge", "/ask", "/drafts"],
    },
    Role.ENGINEER: {
        "Overview": ["/flow", "/specialists", "/decisions"],
        "Documents": ["/documents", "/documents/rejected", "/documents/own", "/audit"],
        "Protection": ["/residual", "/replaced"],
        "Training": ["/datasets", "/syntheses", "/runs", "/adapters", "/approvals", "/bases"],
        "Answers": ["/ask", "/drafts"],
    },
    Role.OPERATOR: {
        "Overview": ["/flow", "/specialists", "/decisions"],
        "Documents": ["/documents", "/documents/rejected", "/documents/own", "/audit"],
        "Protection": ["/residual", "/replaced", "/erasures"],
        "Training": ["/datasets", "/syntheses", "/runs", "/adapters", "/approvals", "/bases"],
        "Answers": ["/judge", "/ask", "/drafts"],
        "Access": ["/people", "/keys"],
    },
    Role.DATA_PROTECTION: {
        "Overview": ["/flow", "/decisions"],
        "Documents": ["/documents", "/documents/rejected", "/audit"],
        "Protection": ["/review", "/residual", "/replaced", "/erasures"],
        "Answers": ["/drafts"],
    },
}
MAIN_PAGES = {
    Role.CALLER: "/ask",
    Role.EXPERT: "/judge",
    Role.ENGINEER: "/flow",
    Role.OPERATOR: "/flow",
    Role.DATA_PROTECTION: "/review",
}


def list_pages(visitor: Visitor) -> dict[str, list[str]]:
    """The paths that lie at most two clicks away, by group."""
    top = make_navigation(visitor, "/")
    shown = {link.title: make_navigation(visitor, link.path).pages or (link,) for link in top.groups}
    return {title: [link.path for link in links] for title, links in shown.items()}


def list_links(browser: TestClient, path: str) -> list[str]:
    """The paths of the links of a page, without those to parts of it."""
    found = re.findall(r'<a [^>]*?href="(/[^"#]*)', browser.get(path).text)
    return [link.replace("&amp;", "&") for link in dict.fromkeys(found)]


@pytest.mark.parametrize("role", list(Role))
def test_each_role_finds_its_pages(role: Role) -> None:
    titles = {path: title for pages in GROUPS.values() for path, title, _ in pages}
    wanted = FOUND[role]
    if len(wanted) == 1:
        pages = {titles[path]: [path] for path in next(iter(wanted.values()))}
    else:
        pages = {titles[paths[0]] if len(paths) == 1 else group: paths for group, paths in wanted.items()}
    assert list_pages(Visitor("somebody", role, key_id=KEY)) == pages
    assert len(GROUPS) <= 6


@pytest.mark.parametrize("role", list(Role))
def test_the_console_opens_at_the_main_page_of_the_role(role: Role) -> None:
    browser = World().signed_in(role)
    assert browser.get("/").headers["location"] == MAIN_PAGES[role]
    assert f'<a href="{MAIN_PAGES[role]}" aria-current="page">' in browser.get(MAIN_PAGES[role]).text


@pytest.mark.parametrize("specialists", [(), (NAME,)])
@pytest.mark.parametrize("role", list(Role))
def test_no_page_has_a_link_that_the_visitor_may_not_open(role: Role, specialists: tuple[str, ...]) -> None:
    browser = World().signed_in(role, *specialists)
    seen, waiting = set[str](), [MAIN_PAGES[role]]
    while waiting:
        path = waiting.pop()
        for link in list_links(browser, path):
            page = link.partition("?")[0]
            if page in seen:
                continue
            seen.add(page)
            assert browser.get(link).status_code not in (401, 403), (path, link)
            waiting.append(link)
    assert {page for pages in FOUND[role].values() for page in pages} - seen <= {"/documents/rejected"}


def test_the_operator_with_the_password_is_not_sent_to_judge() -> None:
    browser = World().browser()
    sign_in(browser, PASSWORD)
    assert browser.get("/").headers["location"] == "/flow"
    assert list_links(browser, "/ask").count("/judge") == 0


def test_the_group_and_the_page_that_the_visitor_is_in_are_marked() -> None:
    engineer = Visitor("somebody", Role.ENGINEER, key_id=KEY)
    at_evaluation = make_navigation(engineer, f"/evaluations/{ADAPTER}")
    assert PageLink("/datasets", "Training", "true") in at_evaluation.groups
    assert [link.path for link in at_evaluation.pages if link.current] == ["/adapters"]
    at_own_id = make_navigation(engineer, "/documents/own")
    assert [link for link in at_own_id.pages if link.current] == [PageLink("/documents/own", "By your id", "page")]
    assert make_navigation(engineer, "/no-such-page").pages == ()
