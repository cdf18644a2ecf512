// Drawings of the last minute: a line in a row of the table, and a chart of what goes in and out.

import { bits, element } from "./dom.js";

const SECONDS = 60;

const path = (values, most, width, height) => values.map((value, index) => {
  const x = ((SECONDS - values.length + index) * width) / (SECONDS - 1), y = height - 1 - ((height - 3) * value) / most;
  return `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
}).join("");

// A line; its draw(history) takes [in, out] for each second.
export function spark() {
  const line = element("svg:path", { class: "in" });
  const drawing = element("svg:svg", { viewBox: "0 0 96 22", preserveAspectRatio: "none", "aria-hidden": "true", class: "spark" }, line);
  drawing.draw = (history) => {
    const values = history.map(([rx, tx]) => rx + tx), most = Math.max(...values, 1);
    const next = path(values, most, 96, 22);
    if (line.getAttribute("d") !== next) line.setAttribute("d", next);
  };
  return drawing;
}

// The next round figure at or above: 1, 2 or 5 times a power of ten, in bits.
function ceiling(bytes) {
  const value = Math.max(bytes * 8, 1000), power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) / 8;
}

// `history` has [in, out] in bytes a second for each of up to 60 steps, the newest last; null: not known.
export function chart(history, ago = "a minute ago") {
  const width = 600, height = 130, known = history.map((each) => each ?? [0, 0]);
  const most = ceiling(Math.max(...known.flat(), 0));
  const area = (values) => (values.length ? `${path(values, most, width, height)}L${width} ${height}L${((SECONDS - values.length) * width) / (SECONDS - 1)} ${height}Z` : "");
  const drawing = element("svg:svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const part of [0.5, 1]) drawing.append(element("svg:path", { class: "grid", d: `M0 ${height - 1 - (height - 3) * part}H${width}` }));
  for (const [index, kind] of [[0, "in"], [1, "out"]]) {
    const values = known.map((each) => each[index]);
    drawing.append(element("svg:path", { class: `area ${kind}`, d: area(values) }), element("svg:path", { class: kind, d: path(values, most, width, height) }));
  }
  const last = known.at(-1) ?? [0, 0];
  const key = element("p", { class: "key" }, element("span", { class: "in" }, `in ${bits(last[0])}`), element("span", { class: "out" }, `out ${bits(last[1])}`));
  return element("figure", { class: "chart" }, key, element("span", { class: "most" }, bits(most)), drawing, element("span", { class: "from" }, ago), element("span", { class: "to" }, "now"));
}
