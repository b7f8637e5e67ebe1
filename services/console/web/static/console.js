// The live parts of the console: the flow and streamed answers; run.js follows a run. Text from services goes into pages as text only.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const csrf = document.body.dataset.csrf;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    if (!window.confirm(form.dataset.confirm)) event.preventDefault();
  });
}

// `state` is "on", "off" or "done".
function showLive(state, text) {
  const live = $("#live");
  if (!live) return;
  live.className = `muted live ${state}`;
  $("span", live).textContent = text;
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
    element("p", { class: "notice bad" }, element("strong", {}, `${failure.service} could not be asked.`),
      ` ${failure.message} `, element("code", {}, failure.reason))));
}

async function followFlow() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    if (document.hidden) continue;
    try {
      const answer = await fetch("/api/flow");
      if (answer.status === 401) return window.location.assign("/login");
      if (!answer.ok) throw new Error(answer.status);
      drawBoard(await answer.json());
      showLive("on", "live");
    } catch {
      showLive("off", "the console does not answer; trying again");
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
      const found = /^event: (.*)\ndata: (.*)$/.exec(block);
      if (found) yield [found[1], JSON.parse(found[2])];
    }
  }
}

async function refusal(answer) {
  const said = await answer.json().catch(() => ({ message: `The console answered ${answer.status}.`, reason: "" }));
  const fields = Object.entries(said.fields || {}).map(([name, text]) => `${name}: ${text}`).join("; ");
  return `${said.message} ${fields} ${said.reason ? `(${said.reason})` : ""}`;
}

function post(path, body, signal) {
  return fetch(path, {
    method: "POST", signal, headers: { "content-type": "application/json", "x-csrf-token": csrf }, body: JSON.stringify(body),
  });
}

// Says what a ranking of what is compared is good for.
function showUse(use) {
  for (const said of document.querySelectorAll("[data-use]")) said.hidden = said.dataset.use !== use;
}

// Streams one answer into its pane; the draft's id, or null where it failed.
async function askOne(pane, question, signal) {
  const words = $(".words", pane);
  const meta = $(".meta", pane);
  const link = $(".draft", pane);
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
      words.append(data.text);
      draft = data.draft_id;
      if (!data.finish_reason) continue;
      const seconds = (performance.now() - started) / 1000;
      meta.textContent = `${data.completion_tokens} tokens in ${seconds.toFixed(1)} s · ${data.finish_reason}` +
        (data.generation ? ` · generation ${data.generation}` : "");
    }
    if (draft) {
      link.textContent = `${draft.slice(0, 14)} · where it came from`;
      link.href = `/drafts/${encodeURIComponent(draft)}`;
      link.hidden = false;
    }
    return draft;
  } catch (error) {
    return fail(error.name === "AbortError" ? "Stopped." : "The connection broke.");
  } finally {
    words.classList.remove("writing");
  }
}

function followQuestions(form) {
  const judging = $("#judge");
  let drafts = {};
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = new FormData(form);
    const question = { prompt: given.get("prompt"), max_tokens: Number(given.get("max_tokens")), temperature: Number(given.get("temperature")) };
    const abort = new AbortController();
    $("#answers").hidden = false;
    $("#go").disabled = true;
    $("#stop").hidden = false;
    $("#stop").onclick = () => abort.abort();
    if (judging) judging.hidden = true;
    const model = given.get("model");
    const again = given.get("beside") === "draw";
    if (again && !question.temperature) {
      // Two draws differ only where chance has a part.
      question.temperature = 0.7;
      form.elements.temperature.value = "0.7";
    }
    $('[data-side="left"] h2').textContent = again ? `${model}, one draw` : "Base";
    $('[data-side="right"] h2').textContent = again ? `${model}, another draw` : model;
    const kept = form.elements.model.selectedOptions[0].dataset.kept;
    showUse(again ? { yes: "learns", no: "unkept" }[kept] : "base");
    const [left, right] = await Promise.all([
      askOne($('[data-side="left"]'), { ...question, model: again ? model : "base" }, abort.signal),
      askOne($('[data-side="right"]'), { ...question, model }, abort.signal),
    ]);
    $("#go").disabled = false;
    $("#stop").hidden = true;
    drafts = { left, right };
    if (!judging || !left || !right) return;
    judging.reset();
    $("#judged").textContent = "";
    $("button", judging).disabled = false;
    judging.hidden = false;
  });
  judging?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = new FormData(judging);
    const better = given.get("better");
    const mark = (name) => Number(given.get(name) || 0);
    $("button", judging).disabled = true;
    const answer = await post("/api/judgements", {
      ranking: [drafts[better], drafts[better === "left" ? "right" : "left"]],
      accuracy: mark("accuracy"), style: mark("style"), usefulness: mark("usefulness"), comment: given.get("comment"),
    }).catch(() => null);
    const said = $("#judged");
    const recorded = answer !== null && answer.ok;
    said.className = recorded ? "up" : "down";
    said.textContent = recorded ? `Recorded as ${(await answer.json()).judgement_id}. Thank you.`
      : answer ? await refusal(answer) : "The connection broke; try again.";
    $("button", judging).disabled = recorded;
  });
}

if ($("#flow")) followFlow();
if ($("#ask")) followQuestions($("#ask"));
