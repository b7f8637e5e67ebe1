// Line charts as SVG.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((by) => by * power).find((by) => by >= rough);
  const values = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) values.push(value);
  return values;
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

// Draws points [[x, y], ...] in x order; the x axis runs to `end`. Screen readers read the title.
function drawChart(box, points, end, { title, height, smooth = false, fromZero = false }) {
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
  const label = `${title}: ${write(points.at(-1)[1])} at step ${points.at(-1)[0]}, ${write(points[0][1])} at step ${points[0][0]}`;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
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
      shape("text", { class: "tip", x: Math.min(x(px) + 8, width - 110), y: top + 4 }, `step ${px}: ${write(py)}`));
  };
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const at = ((event.clientX - frame.left) / frame.width) * width;
    point(...points.reduce((best, next) => (Math.abs(x(next[0]) - at) < Math.abs(x(best[0]) - at) ? next : best)));
  });
  svg.addEventListener("pointerleave", () => mark.replaceChildren(shape("circle", { class: "dot", cx: x(points.at(-1)[0]), cy: y(line.at(-1)[1]), r: 4.5 })));
  svg.dispatchEvent(new Event("pointerleave"));
  box.replaceChildren(svg);
}
