"""What does not fit its place on a page: content that runs out of its box, and boxes that scroll to the side."""

from typing import Any

from tests.integration.browser import BrowserPage

# Elements with more content than width. Text of form fields scrolls inside them, and hidden labels are one pixel wide.
_OVERFLOWING = """[...document.querySelectorAll('body, body > header, main, main *')].filter((node) =>
  node instanceof HTMLElement && node.clientWidth && node.scrollWidth > node.clientWidth + 1 &&
  !node.matches('input, textarea, select, .unseen'))"""
_SCROLLS = "['auto', 'scroll'].includes(getComputedStyle(node).overflowX)"
_NAME = "`${node.tagName.toLowerCase()}.${node.className} ${node.scrollWidth} > ${node.clientWidth}: ${node.innerText.slice(0, 60)}`"
# Boxes whose frame is beyond the card, or the page, that they stand in; what scrolls may be wider.
_ESCAPED = """[...document.querySelectorAll('main *')].filter((node) => {
  if (!(node instanceof HTMLElement) || !node.getClientRects().length || node.closest('.unseen')) return false;
  for (let box = node.parentElement; box; box = box.parentElement) {
    if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return false;
    if (!box.matches('.card, .tile, .stage, .step-card, .notice, td, th, body')) continue;
    return node.getBoundingClientRect().right > box.getBoundingClientRect().right + 0.5;
  }
  return false;
})"""


def find_overflow(page: BrowserPage) -> list[str]:
    """Elements whose content is wider than they are and cannot be scrolled, and elements that stick out of their card."""
    return _list(page, f"{_OVERFLOWING}.filter((node) => !{_SCROLLS}).concat({_ESCAPED}).map((node) => {_NAME})")


def find_scrolling(page: BrowserPage) -> list[str]:
    """Boxes of which a part is seen only by scrolling to the side."""
    return _list(page, f"{_OVERFLOWING}.filter((node) => {_SCROLLS}).map((node) => {_NAME})")


def find_silent_scrolling(page: BrowserPage) -> list[str]:
    """Such boxes that the keyboard does not reach, or that show no scroll bar."""
    is_silent = "(node.tabIndex < 0 || node.offsetHeight - node.clientHeight < 4)"
    return _list(page, f"{_OVERFLOWING}.filter((node) => {_SCROLLS} && {is_silent}).map((node) => {_NAME})")


def _list(page: BrowserPage, expression: str) -> list[str]:
    found: Any = page.evaluate(f"(() => {expression})()".replace("=> [...", "=> [...", 1))
    assert isinstance(found, list), "the script did not return a list"
    return [str(item) for item in found]
