// The table of ports. A row stays the same element for as long as its port is there; only what has changed is written.

import { at, bits, count, element, mark, octets, write } from "./dom.js";
import { choose, found, groups, model } from "./model.js";
import { spark } from "./chart.js";

const lines = new Map();
const visible = new Set();
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) entry.isIntersecting ? visible.add(entry.target) : visible.delete(entry.target);
}, { rootMargin: "200px" });

const COLUMNS = [
  ["name", (row) => row.name], ["state", (row) => row.word],
  ["number", (row) => bits(row.rx)], ["number", (row) => bits(row.tx)], ["trend wide", null],
  ["number wide", (row) => (row.queue ? octets(row.queue) : "")], ["number drops", (row) => (row.lost ? count(row.lost) : "")],
  ["wide address", (row) => row.addresses.join(" ")], ["wide mono", (row) => macs(row)],
  ["number wide", (row) => (row.worker.cpu_percent == null ? "" : `${row.worker.cpu_percent.toFixed(1)} %`)],
];
const macs = (row) => (row.macs.length > 1 ? `${row.macs[0]} +${row.macs.length - 1}` : row.macs[0] ?? "");

function lineOf(row) {
  if (lines.has(row.port)) return lines.get(row.port);
  const line = element("tr", { "data-port": row.port, tabindex: "-1" });
  line.append(element("td", { class: "number" }, String(row.port)), ...COLUMNS.map(([kind]) => element("td", { class: kind })));
  line.querySelector(".trend").append(spark());
  line.addEventListener("click", () => { choose(row.port); document.dispatchEvent(new Event("chosen")); });
  seen.observe(line);
  lines.set(row.port, line);
  return line;
}

function fill(line, row) {
  mark(line, "class", `${row.kind}${model.chosen.includes(row.port) ? " chosen" : ""}`);
  mark(line, "aria-selected", model.chosen.includes(row.port));
  COLUMNS.forEach(([, text], index) => { if (text) write(line.cells[index + 1], text(row)); });
  if (visible.has(line)) line.querySelector(".trend").firstChild.draw(model.history.get(row.port) ?? []);
}

export function drawTable() {
  const rows = found(), body = at("ports");
  const wanted = rows.map(lineOf);
  rows.forEach((row, index) => fill(wanted[index], row));
  const focused = document.activeElement;
  if (wanted.length !== body.children.length || wanted.some((line, index) => body.children[index] !== line)) {
    body.replaceChildren(...wanted);
    if (focused?.isConnected && focused.matches("#ports tr")) focused.focus({ preventScroll: true });
  }
  const present = new Set(model.rows.map((row) => row.port));
  for (const [port, line] of lines) if (!present.has(port)) { seen.unobserve(line); visible.delete(line); lines.delete(port); }
  at("none").hidden = rows.length > 0;
  at("table").classList.toggle("nameless", !model.rows.some((row) => row.addresses.length));
  write(at("none"), model.rows.length ? "No port is like that" : "No VM is attached");
  drawHeads();
  drawGroups();
}

function drawHeads() {
  for (const button of document.querySelectorAll("th button")) {
    const sorted = button.dataset.sort === model.sort;
    if (sorted) mark(button.parentElement, "aria-sort", model.down ? "descending" : "ascending");
    else button.parentElement.removeAttribute("aria-sort");
  }
}

function drawGroups() {
  const listed = groups();
  if (model.group && !listed.some(([key]) => key === model.group)) model.group = "";
  const chips = [["", "all", model.rows.length], ...listed];
  const shown = chips.length > 2 || listed[0]?.[0] === "\0trouble" ? chips : [];
  const text = JSON.stringify([shown, model.group]);
  if (at("groups").dataset.shown === text) return;
  at("groups").dataset.shown = text;
  at("groups").replaceChildren(...shown.map(([key, name, size]) => {
    const chip = element("button", { type: "button", class: key === "\0trouble" ? "chip trouble" : "chip", "aria-pressed": key === model.group }, name, element("span", {}, String(size)));
    chip.addEventListener("click", () => { model.group = model.group === key ? "" : key; document.dispatchEvent(new Event("chosen")); });
    return chip;
  }));
}

// Move the focus by so many rows; the first one if none has it.
export function step(by) {
  const rows = [...at("ports").children];
  const now = rows.indexOf(document.activeElement);
  const next = rows[now < 0 ? 0 : Math.min(Math.max(now + by, 0), rows.length - 1)];
  next?.focus();
}

export function sortBy(column) {
  model.down = model.sort === column ? !model.down : false;
  model.sort = column;
}
