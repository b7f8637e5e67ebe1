// The judging page by keyboard. Without this script, the form works with mouse and Tab.
"use strict";

const desk = $("#desk");
const decide = $("#decide");
const KINDS_OF_TEXT = /^(textarea|select)$/i;
const APPEARS_MS = 2500;
const RELOADS = "judge.reloads";
const MAX_RELOADS = 12;
const STORE = "judge.shortcuts";
// On a touch screen, the page shows no keys, and its messages name none.
const hasKeys = !window.matchMedia("(hover: none) and (pointer: coarse)").matches;

function say(text) {
  $("#said").textContent = text;
}

function isText(node) {
  return KINDS_OF_TEXT.test(node.tagName) || (node.tagName === "INPUT" && !["radio", "checkbox"].includes(node.type));
}

const panes = [...document.querySelectorAll("[data-side]")];
const places = decide ? [...decide.querySelectorAll("select[name=place]")] : [];
// Draft by draft, in the order of the panes.
const markFields = [...document.querySelectorAll("[data-marks] [data-criterion]")];
const isPair = panes.length === 2;
// The index of the mark that the next digit gives.
let nextMark = 0;
// Of more than two drafts: their indexes from best to worst, in groups of equally good ones.
let ranking = [];
let joinsNext = false;
// True if the last draft got its place because the others had theirs.
let lastFollowed = false;

function decision() {
  return decide.elements.decision.value;
}

function setDecision(value) {
  for (const input of decide.elements.decision) input.checked = input.value === value;
}

function isRanked() {
  return isPair ? ["first", "second"].includes(decision()) : decision() === "ranked" && ranking.flat().length === panes.length;
}

// The place of each draft, 1 for the best.
function placeOf(index) {
  if (!isPair) return ranking.findIndex((group) => group.includes(index)) + 1;
  return (decision() === "second") === (index === 1) ? 1 : 2;
}

// The draft to edit: the best one, of equally good ones the first on the page. -1 if none is better.
function bestDraft() {
  if (!isRanked() || (!isPair && ranking.length === 1)) return -1;
  return isPair ? Number(decision() === "second") : Math.min(...ranking[0]);
}

function show() {
  const best = bestDraft();
  panes.forEach((pane, index) => {
    const place = isPair ? 0 : placeOf(index);
    pane.classList.toggle("better", isRanked() && (isPair ? index === best : place === 1));
    const badge = $("[data-place]", pane);
    if (!badge) return;
    badge.hidden = !place;
    badge.textContent = place ? `place ${place}` : "";
  });
  for (const box of decide.querySelectorAll("[data-edit]")) {
    box.hidden = Number(box.dataset.edit) !== best || !$("textarea", box).dataset.open;
  }
  markFields.forEach((field, index) => field.classList.toggle("next", index === nextMark && marksAreNext()));
}

function marksAreNext() {
  return isPair || isRanked() || ["tie", "both_bad"].includes(decision());
}

function choose(input) {
  input.checked = true;
  if (!isPair) clearPlaces();
  show();
  say("");
}

function clearPlaces() {
  ranking = [];
  joinsNext = lastFollowed = false;
  for (const place of places) place.value = "";
}

function showPlaces() {
  places.forEach((place, index) => { place.value = placeOf(index) || ""; });
  setDecision("ranked");
  show();
}

// The last draft has the last place, unless it is said to be as good as the one before.
function rank(index) {
  if (index >= panes.length) return say(`There are ${panes.length} drafts.`);
  if (ranking.flat().includes(index)) return say(`Draft ${index + 1} has a place. Backspace removes the last one.`);
  if (joinsNext) ranking[ranking.length - 1].push(index);
  else ranking.push([index]);
  joinsNext = false;
  const rest = panes.map((_, other) => other).filter((other) => !ranking.flat().includes(other));
  lastFollowed = rest.length === 1;
  if (lastFollowed) ranking.push(rest);
  showPlaces();
  say(describeRanking());
}

function join() {
  if (isPair || ["tie", "both_bad"].includes(decision())) return;
  if (isRanked() && ranking.length > 1) ranking.splice(-2, 2, ranking.slice(-2).flat());
  else if (!isRanked() && ranking.length) joinsNext = true;
  showPlaces();
  say(describeRanking());
}

function describeRanking() {
  return ranking.map((group) => group.map((index) => index + 1).join(" = ")).join(", then ") + (joinsNext ? " =" : "");
}

// Removes the draft that was named last.
function removePlace() {
  if (lastFollowed) ranking.at(-1).pop();
  ranking = ranking.filter((group) => group.length);
  ranking.at(-1).pop();
  ranking = ranking.filter((group) => group.length);
  joinsNext = lastFollowed = false;
  showPlaces();
  if (!ranking.length) setDecision("");
  say(describeRanking());
}

// Places that were chosen in the fields.
function readPlaces() {
  ranking = places.map((_, place) => panes.map((__, index) => index).filter((index) => Number(places[index].value) === place + 1));
  ranking = ranking.filter((group) => group.length);
  joinsNext = lastFollowed = false;
  setDecision("ranked");
}

function giveDigit(digit) {
  if (!marksAreNext()) return digit ? rank(digit - 1) : say("Rank the drafts first.");
  if (digit > 5) return;
  if (nextMark >= markFields.length) return say("All marks are given. Backspace removes the last one.");
  setMark(nextMark, digit);
  nextMark += 1;
  show();
  say("");
}

function setMark(index, value) {
  for (const input of markFields[index].querySelectorAll("input")) input.checked = Number(input.value) === value;
}

function removeLast() {
  if (nextMark > 0) {
    nextMark -= 1;
    setMark(nextMark, 0);
    show();
  } else if (!isPair && ranking.length) removePlace();
}

// The editor of the better draft; null if no draft is better.
function editor() {
  return bestDraft() < 0 ? null : decide.querySelector(`[data-edit="${bestDraft()}"] textarea`);
}

// An edit counts once the text differs from the draft.
function isEdited() {
  const text = editor();
  return text !== null && !text.closest("[data-edit]").hidden && text.value.trim() !== text.defaultValue.trim();
}

function openEditor() {
  const text = editor();
  if (!text) return say(isPair ? `Choose the better draft first${hasKeys ? ": ← or →" : ""}.` : "Rank the drafts first.");
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

function listMarks() {
  return markFields.flatMap((field) => {
    const chosen = $("input:checked", field);
    const draft = field.closest("[data-marks]").dataset.marks;
    return chosen ? [{ draft_id: draft, criterion: field.dataset.criterion, mark: Number(chosen.value) }] : [];
  });
}

// Sent by script, so that a text of many minutes is still there if the console refuses it.
async function recordEdit() {
  const { specialist, attempt, comment } = decide.elements;
  const body = {
    specialist: specialist.value, attempt: attempt.value, comment: comment.value, text: editor().value, marks: listMarks(),
    drafts: panes.map((pane) => pane.dataset.draft), places: panes.map((_, index) => placeOf(index)),
    shown: Number(decide.elements.shown.value),
  };
  say("Recording the edited draft…");
  const answer = await post("/api/judge/edit", body).catch(() => null);
  if (answer?.ok) return window.location.assign(`/judge?specialist=${encodeURIComponent(body.specialist)}`);
  say(answer ? await refusal(answer) : "The connection was lost. Your text is still here: record it again.");
}

function isDecided() {
  return isRanked() || ["tie", "both_bad"].includes(decision());
}

function record() {
  if (!isDecided()) {
    if (isPair) return say(`Choose which draft is better${hasKeys ? ": ←, →, e or b" : ""}.`);
    return say(hasKeys ? `Name the drafts from best to worst: 1 to ${panes.length}, e or b.` : "Give each draft a place, from best to worst.");
  }
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
  else if (/^[0-9]$/.test(event.key)) giveDigit(Number(event.key));
  else if (event.key === "=") join();
  else if (event.key === "Backspace") removeLast();
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
  decide.addEventListener("change", (event) => {
    if (event.target.name === "place") readPlaces();
    else if (event.target.name === "decision" && event.target.value !== "ranked" && !isPair) clearPlaces();
    const marked = markFields.indexOf(event.target.closest("[data-criterion]"));
    if (marked >= 0) nextMark = marked + 1;
    show();
  });
  let sent = false;
  decide.addEventListener("submit", (event) => {
    if (event.submitter?.value === "record" && !isDecided()) {
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
  show();
  desk.focus({ preventScroll: true });
}

// Has more drafts written while the expert judges, one at a time, each once per tab.
async function prepare(place) {
  const waits = place.dataset.waits === "yes";
  const drafts = place.dataset.drafts.split(" ").filter(Boolean);
  const ask = drafts.filter((draft) => !sessionStorage.getItem(draft));
  if (waits && ask.length) place.textContent = "Writing another draft…";
  for (const draft of ask) {
    sessionStorage.setItem(draft, "asked");
    const answer = await post("/api/judge/regenerate", { draft_id: draft }).catch(() => null);
    if (answer?.ok) sessionStorage.removeItem(RELOADS);
    if (answer?.ok && waits) break;
    if (answer?.ok) continue;
    sessionStorage.removeItem(draft);
    if (waits) place.textContent = answer ? await refusal(answer) : "The connection was lost. Reload the page.";
    return;
  }
  if (waits && drafts.length) reloadLater(place);
  else if (place.dataset.draws) await draw(place, waits);
}

// Has a prompt drawn and answered. While an expert judges, that is silent; the next page has the other drafts written.
async function draw(place, waits) {
  if (waits) place.textContent = "Drawing a prompt from the documents…";
  const answer = await post("/api/judge/draw", { specialist: place.dataset.draws }).catch(() => null);
  if (!waits) return;
  if (answer?.ok) sessionStorage.removeItem(RELOADS);
  // Another page draws at this moment, and its prompt appears here too.
  if (answer?.ok || answer?.status === 409) return reloadLater(place);
  place.textContent = answer ? await refusal(answer) : "The connection was lost. Reload the page.";
}

// The text of a draft appears a moment after it was written; without one, somebody has to look.
function reloadLater(place) {
  const reloads = Number(sessionStorage.getItem(RELOADS));
  if (reloads >= MAX_RELOADS) {
    place.textContent = "The new draft does not arrive. Reload the page later.";
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
