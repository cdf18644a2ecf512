// What the page knows of the switch, and what follows from it: the rows of ports, what is wrong, the groups.

import { bits, count, sum } from "./dom.js";

const HISTORY = 60;
const MOST_EVENTS = 200;
const BAD = { pending: "waits for a worker", starting: "is starting", waiting: "has lost its worker", restarting: "has lost its worker",
  parked: "is parked: it lost too many workers", silent: "has a silent worker" };

export const model = {
  away: "Waiting for the switch…", head: null, rows: [], talks: [], gateway: null, uptime: 0, leases: [], events: [],
  history: new Map(), total: [],
  chosen: [], find: "", group: "", sort: "trouble", down: false,
};

const named = new Map();
const shown = new Map();    // the last row of each port; the switch sends those that have changed

function takePorts(data) {
  model.head = data;
  model.leases = data.leases;
  named.clear();
  for (const port of data.ports) named.set(port.port, port);
}

function rowOf([port, state, stalled, [rx, tx, rxFrames, txFrames], queue, drops, dropping]) {
  const known = named.get(port) ?? { name: `port ${port}`, transport: "", macs: [], addresses: [], settings: {}, notes: [], worker: {} };
  const row = { port, ...known, state, rx, tx, rxFrames, txFrames, queue, drops, dropping, lost: sum(Object.values(drops)) };
  row.kind = stalled ? "stalled" : state !== "live" ? "away" : dropping > 0 ? "dropping" : "live";
  row.word = stalled ? "stalled" : state;
  row.group = groupOf(row);
  return row;
}

const groupOf = (row) => row.name.replace(/[-_.]?\d+$/, "") || row.transport;

function takeLive(data) {
  model.away = "";
  if (data.whole) shown.clear();
  for (const row of data.ports) shown.set(row[0], row);
  model.rows = [...shown.values()].sort((one, other) => one[0] - other[0]).map(rowOf);
  model.talks = data.talks;
  model.gateway = data.gateway;
  model.uptime = data.uptime_s;
  const present = new Set(model.rows.map((row) => row.port));
  model.chosen = model.chosen.filter((port) => present.has(port));
}

// A rate of each port for each second; what is not there any more goes.
function remember() {
  const past = new Map(model.history);
  model.history.clear();
  for (const row of model.rows) model.history.set(row.port, [...(past.get(row.port) ?? []), [row.rx, row.tx]].slice(-HISTORY));
  const all = [sum(model.rows.map((row) => row.rx)), sum(model.rows.map((row) => row.tx))];
  model.total = [...model.total, all].slice(-HISTORY);
}

function totals(history) {
  const longest = Math.max(0, ...history.map((past) => past.length));
  return Array.from({ length: longest }, (_, second) => {
    const then = history.map((past) => past[past.length - longest + second] ?? [0, 0]);
    return [sum(then.map(([rx]) => rx)), sum(then.map(([, tx]) => tx))];
  });
}

export const takes = {
  now(data) {
    if (data.ports) takePorts(data.ports);
    model.history = new Map(Object.entries(data.history).map(([port, past]) => [Number(port), past]));
    model.total = totals([...model.history.values()]);
    model.events = data.events;
    if (data.live) takeLive(data.live);
    if (data.away) model.away = data.away.error;
  },
  ports: takePorts,
  live(data) { takeLive(data); remember(); },
  happened(data) { model.events = [...(data.anew ? [] : model.events), ...data.events].slice(-MOST_EVENTS); },
  away(data) { model.away = data.error; },
};

export function verdict() {
  if (model.away) return { text: model.away, kind: "away" };
  const name = (some) => some.slice(0, 3).map((row) => row.name).join(", ") + (some.length > 3 ? ` and ${some.length - 3} more` : "");
  const of = (kind) => model.rows.filter((row) => row.kind === kind);
  const stalled = of("stalled"), away = of("away"), dropping = model.rows.filter((row) => row.dropping >= 1);
  if (stalled.length) return { text: `${name(stalled)}: ${stalled.length > 1 ? "their VMs take" : "its VM takes"} no frames`, kind: "stalled" };
  if (away.length) return { text: `${name(away)} ${away.length > 1 ? "do not forward" : BAD[away[0].state] ?? `is ${away[0].state}`}`, kind: "stalled" };
  if (model.gateway && model.gateway.state !== "live") return { text: `The gateway is ${model.gateway.state}`, kind: "stalled" };
  if (dropping.length) return { text: `${name(dropping)}: ${count(sum(dropping.map((row) => row.dropping)))} frames a second are dropped`, kind: "dropping" };
  return { text: model.rows.length ? "All ports forward" : "No VM is attached", kind: "live" };
}

// Those that the field and the group leave, in the order of the table.
export function found() {
  const words = model.find.toLowerCase();
  const has = (row) => [row.name, row.word, row.transport, String(row.port), ...row.macs, ...row.addresses].some((each) => each.toLowerCase().includes(words));
  const rows = model.rows.filter((row) => (!words || has(row)) && isInGroup(row));
  return rows.sort((one, other) => order(one, other) * (model.down ? -1 : 1) || one.port - other.port);
}

const TROUBLE = ["stalled", "away", "dropping", "live"];
const isInGroup = (row) => !model.group || (model.group === "\0trouble" ? row.kind !== "live" : row.group === model.group);
const rate = (row) => row.rx + row.tx;

function order(one, other) {
  switch (model.sort) {
    case "trouble": return TROUBLE.indexOf(one.kind) - TROUBLE.indexOf(other.kind) || rate(other) - rate(one);
    case "name": return one.name.localeCompare(other.name, undefined, { numeric: true });
    case "word": case "transport": return one[model.sort].localeCompare(other[model.sort]);
    case "port": return one.port - other.port;
    case "cpu": return (other.worker.cpu_percent ?? 0) - (one.worker.cpu_percent ?? 0);
    default: return other[model.sort] - one[model.sort];
  }
}

// The groups with more than one port, and those in trouble: [key, what it is called, how many].
export function groups() {
  const sizes = new Map();
  for (const row of model.rows) sizes.set(row.group, (sizes.get(row.group) ?? 0) + 1);
  const trouble = model.rows.filter((row) => row.kind !== "live").length;
  const large = [...sizes].filter(([, size]) => size > 1).sort((one, other) => other[1] - one[1]).slice(0, 8);
  const listed = large.map(([name, size]) => [name, name, size]);
  return [...(trouble ? [["\0trouble", "in trouble", trouble]] : []), ...listed];
}

export function choose(port) {
  const place = model.chosen.indexOf(port);
  if (place >= 0) model.chosen.splice(place, 1);
  else model.chosen = [...model.chosen.slice(0, 1), port];
}

export const describe = (row) => `${row.name}: ${row.word}, in ${bits(row.rx)}, out ${bits(row.tx)}`;
