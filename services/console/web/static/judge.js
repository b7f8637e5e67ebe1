// The experts' desk by keyboard. Without this script, the form works with mouse and Tab.
"use strict";

const desk = $("#desk");
const decide = $("#decide");
const KINDS_OF_TEXT = /^(textarea|select)$/i;
const MARK_NAMES = ["accuracy", "style", "usefulness"];
const APPEARS_MS = 2500;
const RELOADS = "judge.reloads";
const MAX_RELOADS = 12;
const STORE = "judge.shortcuts";

function say(text) {
  $("#said").textContent = text;
}

function isText(node) {
  return KINDS_OF_TEXT.test(node.tagName) || (node.tagName === "INPUT" && !["radio", "checkbox"].includes(node.type));
}

function isRanked() {
  return ["first", "second"].includes(decide.elements.decision.value);
}

// Marks are for the better draft, so there are none if no draft is better.
function showMarks() {
  const allowed = isRanked();
  for (const input of $("#marks").querySelectorAll("input")) {
    input.disabled = !allowed;
    if (!allowed) input.checked = false;
  }
  for (const pane of document.querySelectorAll("[data-side]")) {
    pane.classList.toggle("better", pane.dataset.side === decide.elements.decision.value);
  }
  for (const box of decide.querySelectorAll("[data-edit]")) {
    box.hidden = box.dataset.edit !== decide.elements.decision.value || !$("textarea", box).dataset.open;
  }
}

function choose(input) {
  input.checked = true;
  showMarks();
  say("");
}

function mark(value) {
  if (!isRanked()) return say("Choose the better draft first.");
  const name = MARK_NAMES.find((candidate) => !decide.elements[candidate].value);
  if (!name) return say("All three marks are given. Backspace removes the last one.");
  decide.elements[name].value = value;
  say("");
}

function removeMark() {
  const name = MARK_NAMES.findLast((candidate) => decide.elements[candidate].value);
  if (name) for (const input of decide.elements[name]) input.checked = false;
}

// The editor of the better draft; null if no draft is better.
function editor() {
  return isRanked() ? decide.querySelector(`[data-edit="${decide.elements.decision.value}"] textarea`) : null;
}

// An edit counts once the text differs from the draft.
function isEdited() {
  const text = editor();
  return text !== null && !text.closest("[data-edit]").hidden && text.value.trim() !== text.defaultValue.trim();
}

function openEditor() {
  const text = editor();
  if (!text) return say("Choose the better draft first: ← or →.");
  text.closest("[data-edit]").hidden = false;
  text.dataset.open = "yes";
  text.focus();
  text.setSelectionRange(0, 0);
  text.scrollTop = 0;
  text.closest("[data-edit]").scrollIntoView({ block: "nearest" });
  say("");
}

function discardEdit(event) {
  const box = event.target.closest("[data-edit]");
  const text = $("textarea", box);
  text.value = text.defaultValue;
  delete text.dataset.open;
  box.hidden = true;
  desk.focus({ preventScroll: true });
}

// Sent by script, so that a text of many minutes is still there if the console refuses it.
async function recordEdit() {
  const { specialist, first, second, attempt, decision, comment } = decide.elements;
  const marks = Object.fromEntries(MARK_NAMES.map((name) => [name, Number(decide.elements[name].value)]));
  const body = {
    specialist: specialist.value, first: first.value, second: second.value, attempt: attempt.value,
    decision: decision.value, comment: comment.value, text: editor().value, shown: Number(decide.elements.shown.value), ...marks,
  };
  say("Recording the edited draft…");
  const answer = await post("/api/judge/edit", body).catch(() => null);
  if (answer?.ok) return window.location.assign(`/judge?specialist=${encodeURIComponent(body.specialist)}`);
  say(answer ? await refusal(answer) : "The connection was lost. Your text is still here: record it again.");
}

function record() {
  if (!decide.elements.decision.value) return say("Choose which draft is better: ←, →, e or b.");
  decide.requestSubmit($("#record"));
}

function toggleDifferences() {
  const button = $("#differences");
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", on);
  for (const box of document.querySelectorAll("[data-view]")) box.hidden = (box.dataset.view === "differences") !== on;
}

function pressInText(event) {
  if (event.key === "Escape") desk.focus({ preventScroll: true });
  else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) record();
  else return;
  event.preventDefault();
}

function press(event) {
  if (isText(event.target)) return pressInText(event);
  if (!$("#shortcuts").checked || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const choice = decide.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  // In a group of radio buttons, the arrows are the browser's.
  if (choice && !(event.target.type === "radio" && event.key.startsWith("Arrow"))) choose(choice);
  else if (/^[1-5]$/.test(event.key)) mark(event.key);
  else if (event.key === "Backspace") removeMark();
  else if (event.key === "Enter" && !/^(button|a|summary)$/i.test(event.target.tagName)) record();
  else if (event.key === "s") decide.requestSubmit($("#skip"));
  else if (event.key === "u" && $("#undo")) $("#undo").requestSubmit();
  else if (event.key === "c") $("#comment").focus();
  else if (event.key === "w") openEditor();
  else if (event.key === "d") toggleDifferences();
  else return;
  event.preventDefault();
}

function followDesk() {
  const shortcuts = $("#shortcuts");
  shortcuts.checked = localStorage.getItem(STORE) !== "off";
  shortcuts.addEventListener("change", () => localStorage.setItem(STORE, shortcuts.checked ? "on" : "off"));
  document.addEventListener("keydown", press);
  decide.addEventListener("change", showMarks);
  let sent = false;
  decide.addEventListener("submit", (event) => {
    if (event.submitter?.value === "record" && !decide.elements.decision.value) {
      event.preventDefault();
      return record();
    }
    if (sent) return event.preventDefault();
    sent = true;
    if (event.submitter?.value !== "record" || !isEdited()) return;
    event.preventDefault();
    recordEdit().finally(() => { sent = false; });
  });
  $("#edit").addEventListener("click", openEditor);
  for (const button of decide.querySelectorAll("[data-discard]")) button.addEventListener("click", discardEdit);
  $("#differences").addEventListener("click", toggleDifferences);
  sessionStorage.removeItem(RELOADS);
  showMarks();
  desk.focus({ preventScroll: true });
}

// Has second drafts written while the expert judges, one at a time, each once per tab.
async function prepare(place) {
  const waits = place.dataset.waits === "yes";
  const drafts = place.dataset.drafts.split(" ").filter(Boolean);
  const ask = drafts.filter((draft) => !sessionStorage.getItem(draft));
  if (waits && ask.length) place.textContent = "Writing a second draft…";
  for (const draft of ask) {
    sessionStorage.setItem(draft, "asked");
    const answer = await post("/api/judge/regenerate", { draft_id: draft }).catch(() => null);
    if (answer?.ok && waits) break;
    if (answer?.ok) continue;
    sessionStorage.removeItem(draft);
    if (waits) place.textContent = answer ? await refusal(answer) : "The connection was lost. Reload the page.";
    return;
  }
  if (waits && drafts.length) reloadLater(place);
}

// The text of a draft appears a moment after it was written; without one, somebody has to look.
function reloadLater(place) {
  const reloads = Number(sessionStorage.getItem(RELOADS));
  if (reloads >= MAX_RELOADS) {
    place.textContent = "The second draft does not arrive. Reload the page later.";
    return;
  }
  sessionStorage.setItem(RELOADS, reloads + 1);
  setTimeout(() => window.location.reload(), APPEARS_MS);
}

// Without a pair, only the undo has a key.
function followUndo() {
  const isOn = () => localStorage.getItem(STORE) !== "off";
  document.addEventListener("keydown", (event) => {
    if (event.key === "u" && event.target === document.body && isOn()) $("#undo")?.requestSubmit();
  });
}

if (desk) followDesk();
else followUndo();
if ($("#preparing")) prepare($("#preparing"));
