// Live updates of one run: tiles, a chart per figure of its method, and its log. The other sections are fetched again from the server.
"use strict";

const REFRESH_MS = 5000;
const MAX_LINES = 500;
const ENDED = ["succeeded", "failed", "cancelled"];
const SECTIONS = ["run-state", "run-facts", "run-message", "run-stages", "run-plan", "run-times", "run-actions"];
const SMOOTH = ["loss", "reward", "accuracy", "held_out_reward", "held_out_agreement", "answer_tokens", "truncated_share", "unanswered_share"];
const FROM_ZERO = ["learning_rate", "tokens_per_second", "memory_bytes", "answer_tokens", "truncated_share", "unanswered_share"];
const GIB = 2 ** 30;

function duration(seconds) {
  if (seconds >= 3600) return `${(seconds / 3600).toFixed(1)} h`;
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.round(seconds)} s`;
}

// `report` holds the newest figures of the current stage. A null figure hides its tile.
function tilesOf(run, report, stages) {
  const ended = ENDED.includes(run.state);
  const fixed = (value) => (value === null ? null : value.toFixed(3));
  if (!report) return { phase: run.state };
  return {
    phase: ended ? run.state : run.progress.phase, stage: stages > 1 ? `${report.stage + 1} of ${stages}` : null,
    step: `${report.step} / ${report.total_steps}`, loss: fixed(report.loss), held_out_loss: fixed(report.held_out_loss),
    reward: fixed(report.reward), kl: fixed(report.kl), accuracy: fixed(report.accuracy),
    held_out_reward: fixed(report.held_out_reward), held_out_agreement: fixed(report.held_out_agreement),
    answer_tokens: report.answer_tokens === null ? null : report.answer_tokens.toFixed(0), truncated_share: fixed(report.truncated_share),
    unanswered_share: fixed(report.unanswered_share),
    learning_rate: report.learning_rate.toExponential(1), gradient_norm: write(report.gradient_norm),
    tokens_per_second: report.tokens_per_second.toFixed(0), memory_bytes: report.memory_bytes ? `${(report.memory_bytes / GIB).toFixed(2)} GiB` : null,
    remaining_seconds: ended ? null : duration(report.remaining_seconds),
  };
}

function drawTiles(run, report, stages) {
  for (const [name, text] of Object.entries(tilesOf(run, report, stages))) {
    const tile = $(`[data-tile="${name}"]`);
    tile.hidden = text === null;
    $("strong", tile).textContent = text ?? "";
  }
}

// The points of one figure. Memory of 0 means that it was not measured.
function pointsOf(list, name) {
  const [scale, least] = name === "memory_bytes" ? [GIB, 1] : [1, -Infinity];
  return list.filter((report) => report[name] !== null && report[name] >= least).map((report) => [report.step, report[name] / scale]);
}

// The reports of each stage by step. A new worker resumes from a checkpoint; the steps that it repeats replace the earlier reports.
class Curves {
  constructor(methods) {
    this.methods = methods;
    this.chosen = null;
    this.clear();
  }

  clear() { this.stages = new Map(); }

  // Outside the training phase, a worker reports only held-out measurements.
  add(progress) {
    const measured = progress.held_out_loss !== null;
    if (progress.step < 1 || (progress.phase !== "training" && !measured)) return;
    if (!this.stages.has(progress.stage)) this.stages.set(progress.stage, new Map());
    const reports = this.stages.get(progress.stage);
    const before = progress.phase === "training" ? {} : reports.get(progress.step);
    reports.set(progress.step, { ...progress, ...before, held_out_loss: progress.held_out_loss });
  }

  // The newest report of a stage; undefined before its first step.
  newest(stage) {
    const reports = this.stages.get(stage);
    return reports && reports.get(Math.max(...reports.keys()));
  }

  // The chosen stage, or the newest.
  get shown() { return this.stages.has(this.chosen) ? this.chosen : Math.max(...this.stages.keys()); }

  get steps() {
    return [...this.stages.values()].reduce((sum, reports) => sum + Math.max(...reports.keys()), 0);
  }

  draw() {
    if (!this.stages.size) return;
    const list = [...this.stages.get(this.shown).values()].sort((a, b) => a.step - b.step);
    const cards = [...document.querySelectorAll("[data-series]")].map((card) => [card, pointsOf(list, card.dataset.series)]);
    // A single point is not a line; its tile shows it. Hide cards before drawing, because the others take their space.
    for (const [card, points] of cards) card.hidden = points.length < 2 && card.dataset.series !== "loss";
    for (const [card, points] of cards) {
      const name = card.dataset.series;
      if (card.hidden || !points.length) continue;
      drawChart($(".chart", card), points, list.at(-1).total_steps, {
        title: $("h2", card).textContent, height: Number(card.dataset.height), smooth: SMOOTH.includes(name), fromZero: FROM_ZERO.includes(name),
      });
    }
    this.drawChoice();
  }

  drawChoice() {
    const box = $("#chart-stages");
    box.hidden = this.stages.size < 2;
    const numbers = [...this.stages.keys()].sort((a, b) => a - b);
    if (box.children.length !== numbers.length) {
      box.replaceChildren(...numbers.map((number) => {
        const button = element("button", { type: "button", class: "quiet" }, `${number + 1} · ${this.methods[number] || "stage"}`);
        button.addEventListener("click", () => { this.chosen = number; this.draw(); });
        return button;
      }));
    }
    numbers.forEach((number, index) => box.children[index].setAttribute("aria-pressed", number === this.shown));
  }
}

function addLines(box, lines) {
  if (!lines.length) return;
  $(".empty", box)?.remove();
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  box.append(...lines.map((line) =>
    element("p", { class: line.level }, element("span", { class: "muted" }, `${line.time} worker ${line.worker} `), line.message)));
  while (box.children.length > MAX_LINES) box.firstChild.remove();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

async function refreshSections(curves) {
  if (await refreshParts(SECTIONS)) showSteps(curves);
}

// While the run lasts, only this page knows the steps of all stages.
function showSteps(curves) {
  const cell = $('[data-sofar="steps"]');
  if (cell && curves.steps) cell.textContent = curves.steps.toLocaleString("en");
}

function followRun(root) {
  const methods = root.dataset.methods.split(",");
  const curves = new Curves(methods);
  let drawn = false;
  let last = "";
  const soon = () => { if (!drawn) { drawn = true; requestAnimationFrame(() => { drawn = false; curves.draw(); showSteps(curves); }); } };
  const refresh = () => refreshSections(curves).catch(() => {});
  const source = new EventSource(`/api/runs/${encodeURIComponent(root.dataset.run)}/events`);
  const timer = setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_MS);
  const close = () => { source.close(); clearInterval(timer); };
  // The service sends everything from the first report, also after a reconnection.
  source.addEventListener("open", () => { curves.clear(); $("#log").replaceChildren(); showLive("on", "live"); });
  source.addEventListener("run", (event) => {
    const run = JSON.parse(event.data);
    if (run.progress) curves.add(run.progress);
    drawTiles(run, run.progress && (curves.newest(run.progress.stage) || run.progress), methods.length);
    addLines($("#log"), run.lines);
    soon();
    const now = `${run.state} ${run.stage} ${run.epoch} ${run.reason}`;
    if (last && last !== now) refresh();
    last = now;
  });
  source.addEventListener("failure", (event) => {
    const failure = JSON.parse(event.data);
    // A stream lasts an hour; then the browser reconnects.
    if (failure.reason === "DEADLINE_EXCEEDED") return;
    close();
    showLive("off", failure.message);
  });
  source.addEventListener("end", () => { close(); refresh(); showLive("done", "ended"); });
  source.addEventListener("error", () => showLive("off", "reconnecting"));
  window.addEventListener("resize", soon);
}

if ($("#run")) followRun($("#run"));
