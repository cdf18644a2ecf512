// The map: the ports on a ring, in the order of their groups, and a line between each two that talk.
//
// What is drawn stays from one second to the next and is changed in place, so that a pointer or a reader does not lose it.
// Up to LABELLED ports have their names; of more, those in trouble, those that are chosen and the busiest have.

import { at, bits, element, mark, write } from "./dom.js";
import { choose, describe, found, model } from "./model.js";

const LABELLED = 36;
const BUSIEST = 10;
const MOVING = 24;
const nodes = new Map(), lines = new Map();
let shape = "";

const layer = (name) => {
  const made = element("svg:g", { class: name });
  at("map").append(made);
  return made;
};
const layers = { ring: null, lines: null, nodes: null };

function sizes() {
  const many = model.rows.length > LABELLED;
  const narrow = at("map").clientWidth < 520;
  return { many, width: narrow ? 480 : 800, height: narrow ? 430 : 520, radius: many ? (narrow ? 165 : 205) : narrow ? 140 : 200,
    node: model.rows.length > 120 ? 4 : many ? 6.5 : model.rows.length > 20 ? 12 : 17, narrow };
}

// A place for each port, with a gap between groups; angles from the top, clockwise.
function places(rows, { radius, many }) {
  const sorted = [...rows].sort((one, other) => one.group.localeCompare(other.group) || one.port - other.port);
  const borders = sorted.filter((row, index) => index > 0 && row.group !== sorted[index - 1].group).length + 1;
  const gap = many ? 1.5 : 0, slots = sorted.length + (many ? borders * gap : 0);
  let slot = 0;
  return new Map(sorted.map((row, index) => {
    if (many && index > 0 && row.group !== sorted[index - 1].group) slot += gap;
    const angle = (2 * Math.PI * slot) / Math.max(slots, 1) - Math.PI / 2;
    slot += 1;
    return [row.port, { x: radius * Math.cos(angle), y: radius * Math.sin(angle), angle, row }];
  }));
}

function labelled(rows) {
  if (rows.length <= LABELLED) return new Set(rows.map((row) => row.port));
  const busiest = [...rows].sort((one, other) => other.rx + other.tx - one.rx - one.tx).filter((row) => row.rx + row.tx > 0).slice(0, BUSIEST);
  const bad = rows.filter((row) => row.kind === "stalled" || row.kind === "away").slice(0, BUSIEST);
  return new Set([...model.chosen, ...bad.map((row) => row.port), ...busiest.map((row) => row.port)]);
}

// Of labels that would touch another, or the name of a group, the later ones go.
function spread(wanted, spots, { radius, many }) {
  const taken = many ? arcs(spots).map(({ angle }) => ({ x: radius * Math.cos(angle), y: radius * Math.sin(angle) })) : [];
  const kept = new Set();
  for (const port of [...wanted].sort((one, other) => rank(one) - rank(other))) {
    const spot = spots.get(port);
    if (!spot || !taken.every((other) => Math.abs(other.y - spot.y) > 32 || Math.abs(other.x - spot.x) > 150)) continue;
    taken.push(spot);
    kept.add(port);
  }
  return kept;
}

const rank = (port) => (model.chosen.includes(port) ? 0 : model.rows.find((row) => row.port === port)?.kind === "live" ? 2 : 1);
const sideOf = (angle) => (Math.abs(Math.cos(angle)) < 0.25 ? "middle" : Math.cos(angle) < 0 ? "end" : "start");

function makeNode(row, spot, size) {
  const { x, y, angle } = spot, side = sideOf(angle);
  const group = element("svg:g", { class: "node", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, "data-port": row.port });
  const out = size.node + (size.many ? 18 : 13), dx = side === "middle" ? 0 : Math.sign(Math.cos(angle)) * out * (0.75 + 0.25 * Math.abs(Math.cos(angle)));
  const dy = side === "middle" ? (Math.sin(angle) < 0 ? -out - 15 : out + 6) : Math.sin(angle) * out * 0.8 - 7;
  const label = element("svg:text", { class: "label", "text-anchor": side });
  label.append(element("svg:tspan", { class: "name", x: dx.toFixed(1), y: dy.toFixed(1) }), element("svg:tspan", { class: "rate", x: dx.toFixed(1), y: (dy + 15).toFixed(1) }));
  group.append(element("svg:title"), element("svg:circle", { class: "halo", r: size.node + 5 }), element("svg:circle", { class: "dot", r: size.node }));
  if (size.node > 10) group.append(element("svg:text", { class: "number" }, String(row.port)));
  group.append(label);
  group.addEventListener("click", () => { choose(row.port); document.dispatchEvent(new Event("chosen")); });
  return group;
}

function build(spots, size) {
  at("map").replaceChildren();
  mark(at("map"), "class", size.many ? "many" : "");
  mark(at("map"), "viewBox", `${-size.width / 2} ${-size.height / 2} ${size.width} ${size.height}`);
  for (const name of Object.keys(layers)) layers[name] = layer(name);
  nodes.clear(); lines.clear();
  layers.ring.append(element("svg:circle", { class: "track", r: size.radius }));
  if (size.many) drawGroups(spots, size);
  for (const [port, spot] of spots) {
    const node = makeNode(spot.row, spot, size);
    nodes.set(port, node);
    layers.nodes.append(node);
  }
}

// An arc and the name of each group outside the ring, if it is long enough for that.
function drawGroups(spots, { radius }) {
  const at = (angle, distance) => `${(distance * Math.cos(angle)).toFixed(1)} ${(distance * Math.sin(angle)).toFixed(1)}`;
  for (const { name, members, angle } of arcs(spots)) {
    const [first, last] = [members[0].angle, members.at(-1).angle], out = radius + 12;
    layers.ring.append(element("svg:path", { class: "arc", d: `M${at(first, out)}A${out} ${out} 0 ${last - first > Math.PI ? 1 : 0} 1 ${at(last, out)}` }));
    const [x, y] = at(angle, radius + 26).split(" ");
    layers.nodes.append(element("svg:text", { class: "group", x, y, "text-anchor": sideOf(angle) }, `${name} · ${members.length}`));
  }
}

function arcs(spots) {
  const groups = [...Map.groupBy([...spots.values()], (spot) => spot.row.group)].filter(([, members]) => members.length >= 8);
  return groups.map(([name, members]) => ({ name, members, angle: (members[0].angle + members.at(-1).angle) / 2 }));
}

function drawNodes(rows, spots, size) {
  const visible = new Set(found().map((row) => row.port)), names = size.many ? spread(labelled(rows), spots, size) : labelled(rows);
  for (const row of rows) {
    const node = nodes.get(row.port);
    const dim = visible.has(row.port) ? "" : " dim";
    mark(node, "class", `node ${row.kind}${model.chosen.includes(row.port) ? " chosen" : ""}${dim}${row.rx + row.tx > 0 ? " busy" : ""}`);
    write(node.querySelector("title"), describe(row));
    const show = names.has(row.port), name = row.name.length > 16 ? `${row.name.slice(0, 15)}…` : row.name;
    write(node.querySelector(".name"), show ? name : "");
    write(node.querySelector(".rate"), show && row.rx + row.tx > 0 ? bits(row.rx + row.tx) : "");
  }
}

// One line for both ways of a pair.
function pairs() {
  const both = new Map();
  for (const [from, to, rate] of model.talks) {
    const [one, other] = from < to ? [from, to] : [to, from], key = `${one} ${other}`;
    const pair = both.get(key) ?? { one, other, rate: 0, there: 0 };
    pair.rate += rate;
    if (from === one) pair.there = rate;
    both.set(key, pair);
  }
  return both;
}

function drawLines(spots, { many }) {
  const now = pairs();
  for (const [key, line] of lines) if (!now.has(key)) { line.remove(); lines.delete(key); }
  const moving = new Set([...now.values()].sort((one, other) => other.rate - one.rate).slice(0, MOVING));
  for (const [key, pair] of now) {
    const a = spots.get(pair.one), b = spots.get(pair.other);
    if (!a || !b) continue;
    if (!lines.has(key)) {
      const bend = 0.28, path = `M${a.x.toFixed(1)} ${a.y.toFixed(1)}Q${((a.x + b.x) * bend).toFixed(1)} ${((a.y + b.y) * bend).toFixed(1)} ${b.x.toFixed(1)} ${b.y.toFixed(1)}`;
      const made = element("svg:g", { class: "talk" }, element("svg:title"), element("svg:path", { class: "way", d: path }), element("svg:path", { class: "pulse", d: path }));
      lines.set(key, made);
      layers.lines.append(made);
    }
    const line = lines.get(key), width = Math.min(1.2 + Math.log10(1 + pair.rate / 100) * 1.1, 9) * (many ? 0.45 : 1);
    const chosen = model.chosen.length > 0, ours = model.chosen.includes(pair.one) || model.chosen.includes(pair.other);
    mark(line, "class", `talk${chosen ? (ours ? " ours" : " other") : ""}${moving.has(pair) ? "" : " still"}${pair.there * 2 < pair.rate ? " back" : ""}`);
    mark(line, "stroke-width", width.toFixed(1));
    write(line.querySelector("title"), `${a.row.name} and ${b.row.name}: ${bits(pair.there)} there, ${bits(pair.rate - pair.there)} back`);
  }
}

export function drawMap() {
  const { rows } = model, size = sizes(), spots = places(rows, size);
  const next = `${size.width} ${size.node} ${[...spots].map(([port, spot]) => `${port}${spot.row.group}`).join()}`;
  if (next !== shape) { shape = next; build(spots, size); }
  drawNodes(rows, spots, size);
  drawLines(spots, size);
}
