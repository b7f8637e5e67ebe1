// Live updates of the flow page and streamed answers; run.js updates a run. Text from services is inserted as text, never as HTML.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const csrf = document.body.dataset.csrf;

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// On the document, because parts of pages are replaced.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// `state` is "on", "off" or "done".
function showLive(state, text) {
  const live = $("#live");
  if (!live) return;
  live.className = `muted live ${state}`;
  $("span", live).textContent = text;
}

// True if somebody works in a part of the page: it has the focus, an input that was changed, or selected text.
function isInUse(part) {
  if (part.contains(document.activeElement) && document.activeElement !== document.body) return true;
  const selected = window.getSelection();
  if (selected && !selected.isCollapsed && part.contains(selected.anchorNode)) return true;
  return [...part.querySelectorAll("input, textarea")].some((field) =>
    field.type !== "hidden" && (field.value !== field.defaultValue || field.checked !== field.defaultChecked));
}

// Replaces parts of the page by those of the same page as it is now, except parts in use. Returns false if it cannot be fetched.
async function refreshParts(ids) {
  const answer = await fetch(window.location.href);
  if (!answer.ok) return false;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ids) {
    const [old, update] = [document.getElementById(id), fresh.getElementById(id)];
    if (old && update && old.innerHTML !== update.innerHTML && !isInUse(old)) old.replaceChildren(...update.childNodes);
  }
  return true;
}

const REFRESH_PAGE_MS = 5000;

// Pages with parts that are refreshed as long as they are seen.
async function followParts(ids) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, REFRESH_PAGE_MS));
    if (document.hidden) continue;
    const isFresh = await refreshParts(ids).catch(() => false);
    showLive(isFresh ? "on" : "off", isFresh ? "live" : "no answer from the console; trying again");
  }
}

// --- the flow at work ---

const POLL_MS = 2000;

function drawBars(name, items) {
  const box = document.getElementById(name);
  const rows = items.map((item) =>
    element("div", {}, element("span", {}, item.name), element("meter", { min: 0, max: 100, value: item.share }), element("b", {}, item.count)));
  box.replaceChildren(...(rows.length ? rows : [element("p", { class: "muted" }, box.dataset.none)]));
}

function drawBoard(board) {
  for (const stage of board.stages) {
    const box = $(`[data-stage="${stage.name}"]`);
    if (!box) continue;
    box.className = `stage ${stage.state}`;
    $("strong", box).textContent = stage.value;
    $(".note", box).textContent = stage.note;
  }
  for (const count of document.querySelectorAll('[data-value="rejected_total"]')) count.textContent = board.rejected_total;
  for (const name of ["rejected", "findings", "dead_lettered"]) drawBars(name, board[name]);
  $("#services").replaceChildren(...board.services.map((service) =>
    element("li", { class: service.state }, element("i"), service.name,
      element("span", {}, service.state === "up" ? "answers" : "does not answer"))));
  $("#failures").replaceChildren(...board.failures.map((failure) =>
    element("p", { class: "notice bad" }, element("strong", {}, `No answer from ${failure.service}.`),
      ` ${failure.message} `, element("code", {}, failure.reason))));
}

// Of the specialist that the page shows: another one is another page.
async function followFlow() {
  const address = `/api/flow?specialist=${encodeURIComponent($("#flow").dataset.specialist)}`;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    if (document.hidden) continue;
    try {
      const answer = await fetch(address);
      if (answer.status === 401) return window.location.assign("/login");
      if (!answer.ok) throw new Error(answer.status);
      drawBoard(await answer.json());
      showLive("on", "live");
    } catch {
      showLive("off", "no answer from the console; trying again");
    }
  }
}

// --- asking ---

async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const match = /^event: (.*)\ndata: (.*)$/.exec(block);
      if (match) yield [match[1], JSON.parse(match[2])];
    }
  }
}

async function refusal(answer) {
  const error = await answer.json().catch(() => ({ message: `The console answered ${answer.status}.`, reason: "" }));
  const fields = Object.entries(error.fields || {}).map(([name, text]) => `${name}: ${text}`).join("; ");
  return `${error.message} ${fields} ${error.reason ? `(${error.reason})` : ""}`;
}

function post(path, body, signal) {
  return fetch(path, {
    method: "POST", signal, headers: { "content-type": "application/json", "x-csrf-token": csrf }, body: JSON.stringify(body),
  });
}

// Explains what a ranking of these answers is used for.
function showUse(use) {
  for (const note of document.querySelectorAll("[data-use]")) note.hidden = note.dataset.use !== use;
}

// Streams one answer into its pane. Returns the draft's id, or null if it failed.
async function askOne(pane, question, signal) {
  const words = $(".words", pane);
  const meta = $(".meta", pane);
  const link = $(".draft", pane);
  const thought = element("div", { class: "muted" });
  const started = performance.now();
  const fail = (text) => { words.append(element("p", { class: "wrong" }, text)); return null; };
  words.replaceChildren();
  meta.textContent = "";
  link.hidden = true;
  words.classList.add("writing");
  try {
    const answer = await post("/api/ask", question, signal);
    if (!answer.ok) return fail(await refusal(answer));
    let draft = null;
    for await (const [name, data] of eventsOf(answer)) {
      if (name === "failure") return fail(`${data.message} (${data.reason})`);
      if (name !== "piece") continue;
      if (data.thought) {
        if (!thought.isConnected) words.append(element("details", {}, element("summary", {}, "Thought"), thought));
        thought.append(data.thought);
      }
      words.append(data.text);
      draft = data.draft_id;
      if (!data.finish_reason) continue;
      const seconds = (performance.now() - started) / 1000;
      meta.textContent = `${data.completion_tokens} tokens in ${seconds.toFixed(1)} s · ${data.finish_reason}` +
        (data.generation ? ` · generation ${data.generation}` : "");
    }
    if (draft) {
      link.textContent = `${draft.slice(0, 14)} · trace it`;
      link.href = `/drafts/${encodeURIComponent(draft)}`;
      link.hidden = false;
    }
    return draft;
  } catch (error) {
    return fail(error.name === "AbortError" ? "Stopped." : "The connection was lost.");
  } finally {
    words.classList.remove("writing");
  }
}

// An empty field leaves the choice to the specialist.
function numberOf(text) {
  return text === "" ? null : Number(text);
}

// What the specialist's next round lacks, next to what the ranking is for.
function showRound(sentence) {
  const place = $("#round");
  if (place) place.textContent = sentence || "";
}

function followQuestions(form) {
  const judging = $("#judge");
  let drafts = {};
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = new FormData(form);
    const question = { prompt: given.get("prompt"), max_tokens: numberOf(given.get("max_tokens")), temperature: numberOf(given.get("temperature")) };
    const abort = new AbortController();
    $("#answers").hidden = false;
    $("#go").disabled = true;
    $("#stop").hidden = false;
    $("#stop").onclick = () => abort.abort();
    if (judging) judging.hidden = true;
    const model = given.get("model");
    const twice = given.get("compare") === "draw";
    if (twice && !question.temperature) {
      // At temperature 0, both answers would be the same.
      question.temperature = 0.7;
      form.elements.temperature.value = "0.7";
    }
    $('[data-side="left"] h2').textContent = `${twice ? model : "Base"}, first answer`;
    $('[data-side="right"] h2').textContent = `${model}, second answer`;
    const storesText = form.elements.model.selectedOptions[0].dataset.kept;
    showUse(twice ? { yes: "learns", no: "unkept" }[storesText] : "base");
    showRound(form.elements.model.selectedOptions[0].dataset.round);
    const [left, right] = await Promise.all([
      askOne($('[data-side="left"]'), { ...question, model: twice ? model : "base" }, abort.signal),
      askOne($('[data-side="right"]'), { ...question, model }, abort.signal),
    ]);
    $("#go").disabled = false;
    $("#stop").hidden = true;
    drafts = { left, right };
    if (!judging || !left || !right) return;
    judging.reset();
    for (const box of judging.querySelectorAll("[data-criteria]")) box.hidden = box.dataset.criteria !== model;
    $("#judged").textContent = "";
    $("button", judging).disabled = false;
    judging.hidden = false;
  });
  judging?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = new FormData(judging);
    const better = given.get("better");
    const isRanked = better === "left" || better === "right";
    const ranking = better === "right" ? [drafts.right, drafts.left] : [drafts.left, drafts.right];
    const marked = isRanked ? [...judging.querySelectorAll("[data-criteria]:not([hidden]) input:checked")] : [];
    const marks = marked.map((input) => ({ draft_id: ranking[0], criterion: input.closest("[data-criterion]").dataset.criterion, mark: Number(input.value) }));
    $("button", judging).disabled = true;
    const answer = await post("/api/judgements", {
      ranking, marks, outcome: isRanked ? "ranked" : better, comment: given.get("comment"),
    }).catch(() => null);
    const status = $("#judged");
    const recorded = answer !== null && answer.ok;
    status.className = recorded ? "up" : "down";
    const saved = recorded ? await answer.json() : null;
    status.textContent = recorded ? `Recorded as ${saved.judgement_id}. Thank you.`
      : answer ? await refusal(answer) : "The connection was lost. Try again.";
    if (recorded && saved.round) {
      form.elements.model.selectedOptions[0].dataset.round = saved.round;
      showRound(saved.round);
    }
    $("button", judging).disabled = recorded;
  });
}

const refreshed = [...document.querySelectorAll("[data-refresh]")].map((part) => part.id);
if (refreshed.length) followParts(refreshed);
if ($("#flow")) followFlow();
if ($("#ask")) followQuestions($("#ask"));
