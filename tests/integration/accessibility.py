"""What axe finds wrong with a page by the rules of WCAG 2.2, levels A and AA, and by those that it calls best practice."""

import importlib.util
from pathlib import Path

import pytest

from tests.integration.browser import BrowserPage

TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice")


def find_violations(page: BrowserPage) -> list[str]:
    """The violations on the page as it is now: the rule, what it asks for, and the elements."""
    page.evaluate(_read_axe())
    options = f"{{runOnly: {{type: 'tag', values: {list(TAGS)}}}, resultTypes: ['violations']}}"
    script = (
        f"axe.run(document, {options}).then(found => ({{passed: found.passes.length, violations: found.violations.map(rule => "
        "`${rule.id}: ${rule.help}: ${rule.nodes.map(node => node.target + ' ' + node.failureSummary).join(' | ')}`)}))"
    )
    answer = page.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
    found = answer["result"]["value"]
    assert found["passed"], "axe applied no rule"
    return [str(violation) for violation in found["violations"]]


def set_color_scheme(page: BrowserPage, scheme: str) -> None:
    """Show pages as for `light` or `dark`."""
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def _read_axe() -> str:
    """The script. The package is not imported, because it requires a driver that the tests do not use."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs axe-playwright-python, which `make install` installs")
    return (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")
