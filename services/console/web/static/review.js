// Marks words of a passage by keyboard, mouse or touch. Offsets are the server's, in code points. Without this script, a passage can be skipped.
"use strict";

const box = $("#passage");
const form = $("#decide");
// Context counts too, because a value may go on behind the passage; what was replaced cannot be marked.
const words = box ? [...box.querySelectorAll(".word, .context")].filter((node) => node.textContent.trim()) : [];
const marks = [];
let anchor = -1;
let cursor = -1;

const startOf = (node) => Number(node.dataset.start);
const endOf = (node) => Number(node.dataset.end);

function chosen() {
  return cursor < 0 ? [] : words.slice(Math.min(anchor, cursor), Math.max(anchor, cursor) + 1);
}

function rangeText(start, end) {
  return [...box.children].filter((node) => startOf(node) >= start && endOf(node) <= end).map((node) => node.textContent).join("");
}

function draw() {
  const picked = new Set(chosen());
  for (const node of words) {
    const mark = marks.find(([start, end]) => startOf(node) >= start && endOf(node) <= end);
    node.classList.toggle("picked", picked.has(node));
    node.classList.toggle("marked", Boolean(mark));
    node.classList.toggle("cleared", Boolean(mark) && !mark[2]);
  }
  const list = $("#marks");
  list.replaceChildren(...marks.map(([start, end, type], place) => {
    const remove = element("button", { type: "button", class: "quiet", "aria-label": "Remove this mark" }, "remove");
    remove.addEventListener("click", () => { marks.splice(place, 1); draw(); });
    return element("li", {}, element("b", {}, rangeText(start, end)), ` ${(type || "not personal").replaceAll("_", " ").toLowerCase()} `, remove);
  }));
  list.hidden = !marks.length;
  form.elements.marks.value = JSON.stringify(marks);
  $("#save span").textContent = marks.some((mark) => mark[2]) ? `Save ${marks.length} mark${marks.length > 1 ? "s" : ""}` : "Nothing left";
}

function say(text) {
  $("#said").textContent = text;
}

function choose(place, extends_) {
  cursor = Math.max(0, Math.min(words.length - 1, place));
  if (!extends_ || anchor < 0) anchor = cursor;
  words[cursor].scrollIntoView({ block: "nearest" });
  draw();
}

function mark(type) {
  const picked = chosen();
  if (!picked.length) return say("Choose words first.");
  const [start, end] = [startOf(picked[0]), endOf(picked.at(-1))];
  if (!picked[0].classList.contains("word")) return say("A value belongs to the passage in which it starts.");
  if (box.querySelector(".replaced") && [...box.querySelectorAll(".replaced")].some((node) => startOf(node) < end && endOf(node) > start)) {
    return say("A surrogate or a mask cannot be marked.");
  }
  if (marks.some((other) => other[0] < end && other[1] > start)) return say("These words are marked already.");
  marks.push([start, end, type]);
  say("");
  anchor = cursor = words.indexOf(picked.at(-1));
  draw();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const button = $("#types").querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (step) {
    const first = words.findIndex((node) => node.classList.contains("word"));
    choose(cursor < 0 ? first : cursor + step, event.shiftKey);
  } else if (event.key === "Enter" && !(event.target.tagName === "BUTTON" || event.target.tagName === "A")) form.requestSubmit($("#save"));
  else if (event.key === "s") form.requestSubmit($("#skip"));
  else if (event.key === "u") $("#undo").requestSubmit();
  else if (event.key === "Backspace") { marks.pop(); draw(); }
  else if (event.key === "Escape") { anchor = cursor = -1; draw(); }
  else if (button) mark(button.dataset.type);
  else return;
  event.preventDefault();
}

if (box) {
  document.addEventListener("keydown", press);
  // A second word extends the choice, as a finger has no Shift; the chosen word again ends it.
  box.addEventListener("click", (event) => {
    const place = words.indexOf(event.target);
    if (place < 0) return;
    const again = place === cursor && anchor === cursor;
    if (again) { anchor = cursor = -1; draw(); } else choose(place, event.shiftKey || (cursor >= 0 && Math.abs(place - cursor) === 1));
  });
  for (const button of $("#types").querySelectorAll("button")) button.addEventListener("click", () => mark(button.dataset.type));
  box.focus({ preventScroll: true });
} else {
  document.addEventListener("keydown", (event) => { if (event.key === "u" && event.target === document.body) $("#undo").requestSubmit(); });
}
