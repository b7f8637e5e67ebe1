// The live parts of the console: the flow, a run's charts, streamed answers. Text from services goes into pages as text only.
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

// --- charts ---

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((by) => by * power).find((by) => by >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) found.push(value);
  return found;
}

function write(value) {
  if (value === 0) return "0";
  if (Math.abs(value) < 0.001) return value.toExponential(1);
  return Number(value.toPrecision(4)).toLocaleString("en");
}

function smoothed(points) {
  let mean = points[0][1];
  return points.map(([x, y]) => [x, (mean = 0.7 * mean + 0.3 * y)]);
}

// Draws points [[x, y], ...] in x order; the x axis runs to `end`.
function drawChart(box, points, end, { height, smooth = false, fromZero = false }) {
  const width = Math.max(box.clientWidth, 320);
  const [left, right, top, bottom] = [52, 12, 12, 26];
  const values = points.map((point) => point[1]);
  let [low, high] = [fromZero ? 0 : Math.min(...values), Math.max(...values)];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  [low, high] = [fromZero ? 0 : low - room, high + room];
  const first = points[0][0];
  const last = Math.max(end, points.at(-1)[0], first + 1);
  const x = (value) => left + ((value - first) / (last - first)) * (width - left - right);
  const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
  const path = (list) => list.map(([a, b], index) => `${index ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("");
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const value of ticks(low, high, height / 55)) {
    svg.append(shape("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    svg.append(shape("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, write(value)));
  }
  for (const value of ticks(first, last, Math.min(10, last - first, width / 90)).filter(Number.isInteger)) {
    svg.append(shape("text", { x: x(value), y: height - 6, "text-anchor": "middle" }, write(value)));
  }
  const line = smooth ? smoothed(points) : points;
  svg.append(shape("path", { class: "under", d: `${path(line)}L${x(points.at(-1)[0])},${height - bottom}L${x(first)},${height - bottom}Z` }));
  if (smooth) svg.append(shape("path", { class: "raw", d: path(points) }));
  svg.append(shape("path", { class: "smooth", d: path(line) }));
  const mark = shape("g", {});
  svg.append(mark);
  const point = (px, py) => {
    mark.replaceChildren(
      shape("line", { class: "cross", x1: x(px), x2: x(px), y1: top, y2: height - bottom }),
      shape("circle", { class: "dot", cx: x(px), cy: y(py), r: 4.5 }),
      shape("text", { class: "said", x: Math.min(x(px) + 8, width - 110), y: top + 4 }, `step ${px}: ${write(py)}`));
  };
  svg.addEventListener("pointermove", (event) => {
    const where = svg.getBoundingClientRect();
    const at = ((event.clientX - where.left) / where.width) * width;
    point(...points.reduce((best, each) => (Math.abs(x(each[0]) - at) < Math.abs(x(best[0]) - at) ? each : best)));
  });
  svg.addEventListener("pointerleave", () => mark.replaceChildren(shape("circle", { class: "dot", cx: x(points.at(-1)[0]), cy: y(line.at(-1)[1]), r: 4.5 })));
  svg.dispatchEvent(new Event("pointerleave"));
  box.replaceChildren(svg);
}

// --- a run ---

function duration(seconds) {
  if (seconds >= 3600) return `${(seconds / 3600).toFixed(1)} h`;
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.round(seconds)} s`;
}

const BADGES = { succeeded: "good", running: "busy", queued: "busy", failed: "bad" };

function drawTiles(run) {
  const said = run.progress;
  const ended = ["succeeded", "failed", "cancelled"].includes(run.state);
  const shown = said ? {
    phase: ended ? run.state : said.phase, step: `${said.step} / ${said.total_steps}`, loss: said.loss.toFixed(3),
    learning_rate: said.learning_rate.toExponential(1), gradient_norm: said.gradient_norm.toPrecision(3),
    tokens_per_second: said.tokens_per_second.toFixed(0), remaining_seconds: ended ? "–" : duration(said.remaining_seconds),
  } : { phase: run.state };
  for (const [name, text] of Object.entries(shown)) $(`[data-tile="${name}"]`).textContent = text;
  $("#run-state").replaceChildren(element("span", { class: `badge ${BADGES[run.state] || "plain"}` }, run.state));
  $("#epoch").textContent = run.epoch;
  const message = $("#run-message");
  message.hidden = !run.message;
  message.replaceChildren(`${run.message} `, element("code", {}, run.reason));
}

function followRun(box) {
  let reports = new Map();
  let total = 0;
  let drawn = false;
  const redraw = () => {
    drawn = false;
    const list = [...reports.values()].sort((a, b) => a.step - b.step);
    if (!list.length) return;
    const series = (name) => list.map((report) => [report.step, report[name]]);
    drawChart(box, series("loss"), total, { height: 300, smooth: true });
    drawChart($("#rate"), series("learning_rate"), total, { height: 130, fromZero: true });
    drawChart($("#speed"), series("tokens_per_second"), total, { height: 130, fromZero: true });
  };
  const soon = () => { if (!drawn) { drawn = true; requestAnimationFrame(redraw); } };
  const source = new EventSource(`/api/runs/${encodeURIComponent(box.dataset.run)}/events`);
  // The service tells everything from the first report on, also when the connection was made again.
  source.addEventListener("open", () => { reports = new Map(); showLive("on", "live"); });
  source.addEventListener("run", (event) => {
    const run = JSON.parse(event.data);
    drawTiles(run);
    if (!run.progress) return;
    total = run.progress.total_steps;
    // A new worker goes on from a checkpoint: what it repeats replaces what was said before.
    if (run.progress.step > 0 && run.progress.loss > 0) reports.set(run.progress.step, run.progress);
    soon();
  });
  source.addEventListener("failure", (event) => { source.close(); showLive("off", JSON.parse(event.data).message); });
  source.addEventListener("end", () => { source.close(); showLive("done", "ended"); });
  source.addEventListener("error", () => showLive("off", "connecting again"));
  window.addEventListener("resize", soon);
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
    $('[data-side="specialist"] h2').textContent = given.get("model");
    // Two draws of one specialist differ only where chance has a part; such rankings become pairs where its drafts are kept.
    const again = given.get("beside") === "draw";
    if (again) question.temperature = Math.max(question.temperature, 0.7);
    $('[data-side="base"] h2').textContent = again ? `${given.get("model")}, another draw` : "Base";
    const [base, specialist] = await Promise.all([
      askOne($('[data-side="base"]'), { ...question, model: again ? given.get("model") : "base" }, abort.signal),
      askOne($('[data-side="specialist"]'), { ...question, model: given.get("model") }, abort.signal),
    ]);
    $("#go").disabled = false;
    $("#stop").hidden = true;
    drafts = { base, specialist };
    if (!judging || !base || !specialist) return;
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
      ranking: [drafts[better], drafts[better === "base" ? "specialist" : "base"]],
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
if ($("#loss")) followRun($("#loss"));
if ($("#ask")) followQuestions($("#ask"));
