// What is chosen: nothing (the switch as a whole), one port, or two, for which the switch explains whether they can talk.

import { at, bits, clock, count, duration, element, facts, octets } from "./dom.js";
import { chart } from "./chart.js";
import { model } from "./model.js";

const past = { port: 0, hour: false, values: [], at: 0 };
const PAST_MS = 30_000;

const asked = { pair: "", answer: null, error: "", at: 0 };

export function drawInspector() {
  const rows = model.chosen.map((port) => model.rows.find((row) => row.port === port)).filter(Boolean);
  at("inspector").dataset.chosen = rows.length;
  if (rows.length === 2) drawPair(...rows);
  else if (rows.length === 1) drawPort(rows[0]);
  else drawSwitch();
}

function put(title, ...parts) {
  const body = at("inspector-body"), focused = body.contains(document.activeElement) ? document.activeElement.textContent : null;
  at("inspector-title").textContent = title;
  body.replaceChildren(...parts.filter(Boolean));
  if (focused !== null) [...body.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
}

function list(pairs) {
  const made = element("dl");
  facts(made, pairs.filter(([, value]) => value));
  return made;
}

function drawSwitch() {
  const hint = element("p", { class: "hint" }, "Choose a port to see what it does. Choose a second one, and the switch says whether they can talk.");
  const listeners = (model.head?.listeners ?? []).map((each) => each.url);
  put("The switch", chart(model.total), hint, list([
    ["version", model.head?.version], ["up", duration(model.uptime)], ["listens at", listeners.join("\n")],
    ["busiest", busiest()],
  ]), element("h3", {}, "Dropped, by reason"), reasons(allDrops()));
}

function busiest() {
  const pairs = model.talks.slice(0, 4);
  return pairs.map(([from, to, rate]) => `${nameOf(from)} to ${nameOf(to)} ${bits(rate)}`).join("\n");
}

function allDrops() {
  const total = {};
  for (const { drops } of model.rows) for (const [reason, value] of Object.entries(drops)) total[reason] = (total[reason] ?? 0) + value;
  return total;
}

const nameOf = (port) => model.rows.find((each) => each.port === port)?.name ?? `port ${port}`;

// The reasons of drops as bars, the most frequent first.
function reasons(drops) {
  const known = Object.entries(drops).sort(([, one], [, other]) => other - one);
  if (!known.length) return element("p", { class: "fine" }, "No frame was dropped.");
  const most = known[0][1], bars = element("ul", { class: "bars" });
  for (const [reason, value] of known) {
    const bar = element("span", { class: "bar" });
    bar.style.width = `${Math.max(2, (100 * value) / most)}%`;
    bars.append(element("li", {}, element("span", { class: "reason" }, reason), element("span", { class: "track" }, bar), element("span", { class: "number" }, count(value))));
  }
  return bars;
}

function settings({ settings }) {
  const words = [];
  if (settings.isolated) words.push(`isolated, reaches ${settings.reaches?.join(", ") || "nothing"}`);
  if (settings.guard) words.push("guard");
  if (settings.mtu) words.push(`mtu ${settings.mtu}`);
  if (settings.offload && settings.offload !== "none") words.push(`offload ${settings.offload}`);
  return words.join(", ");
}

function drawPort(row) {
  const talks = model.talks.filter(([from, to]) => from === row.port || to === row.port);
  const peers = new Map();
  for (const [from, to, rate] of talks) peers.set(from === row.port ? to : from, (peers.get(from === row.port ? to : from) ?? 0) + rate);
  const partners = [...peers].sort(([, one], [, other]) => other - one).slice(0, 4).map(([port, rate]) => `${nameOf(port)} ${bits(rate)}`);
  const notes = row.notes.map((note) => element("p", { class: "note" }, note));
  put(row.name, badge(row), spans(row), portChart(row), ...notes, list([
    ["talks to", partners.join("\n")],
    ["MAC addresses", row.macs.join("\n") || "none seen yet"], ["IP addresses", row.addresses.join("\n")],
    ["frames", `${count(row.rxFrames)}/s in, ${count(row.txFrames)}/s out`],
    ["waiting for the VM", row.queue ? octets(row.queue) : ""],
    ["settings", settings(row)],
    ["worker", row.worker.pid ? `pid ${row.worker.pid}${row.worker.restarts ? `, restarted ${row.worker.restarts} times` : ""}${row.worker.pss_bytes ? `, ${octets(row.worker.pss_bytes)}` : ""}` : "none"],
  ]), element("h3", {}, "Dropped, by reason"), reasons(row.drops));
}

// The last minute is known here; the last hour is asked from the switch, which keeps it.
function spans(row) {
  if (past.port !== row.port) Object.assign(past, { port: row.port, values: [], at: 0 });
  if (past.hour && Date.now() - past.at > PAST_MS) askHour(row.port);
  const button = (hour, text) => {
    const made = element("button", { type: "button", class: "chip", "aria-pressed": past.hour === hour }, text);
    made.addEventListener("click", () => { past.hour = hour; drawInspector(); });
    return made;
  };
  return element("p", { class: "spans" }, button(false, "minute"), button(true, "hour"));
}

function portChart(row) {
  return past.hour ? chart(past.values, "an hour ago") : chart(model.history.get(row.port) ?? []);
}

async function askHour(port) {
  past.at = Date.now();
  const response = await fetch(`api/history?port=${port}&span=hour`).catch(() => null);
  if (!response?.ok || past.port !== port) return;
  const { seconds, rx_bytes: rx, tx_bytes: tx } = await response.json();
  past.values = rx.map((value, index) => (value === null ? null : [value / seconds, tx[index] / seconds]));
  drawInspector();
}

function badge(row) {
  const here = duration(row.since_s + model.uptime - model.head.uptime_s);
  return element("p", { class: `badge ${row.kind}` }, row.word, element("span", {}, `port ${row.port}, ${row.transport}, here for ${here}`));
}

function drawPair(one, other) {
  const pair = `${one.port} ${other.port}`;
  if (asked.pair !== pair) ask(pair, one, other);
  const again = element("button", { type: "button", class: "quiet" }, "ask again");
  again.addEventListener("click", () => ask(pair, one, other));
  const when = asked.at ? element("p", { class: "asked" }, `asked at ${clock(asked.at)} `, again) : element("p", { class: "asked" }, "asking the switch…");
  put(`${one.name} → ${other.name}`, answer(), when, ...ends());
}

async function ask(pair, one, other) {
  Object.assign(asked, { pair, answer: null, error: "", at: 0 });
  const words = new URLSearchParams({ a: one.port, b: other.port });
  try {
    const response = await fetch(`api/explain?${words}`);
    if (asked.pair !== pair) return;
    if (response.ok) asked.answer = await response.json();
    else asked.error = (await response.text()).trim();
  } catch {
    asked.error = "the page's own process does not answer";
  }
  asked.at = Date.now() / 1000;
  drawInspector();
}

function answer() {
  if (asked.error) return element("p", { class: "answer cannot" }, asked.error);
  const told = asked.answer;
  if (!told) return element("p", { class: "answer" }, "…");
  const kind = !told.talk ? "cannot" : told.findings.length ? "doubt" : "can";
  const further = told.findings.slice(1).map((each) => element("li", { class: each.stops ? "stops" : "" }, each.text));
  const parts = element("div", {}, element("p", { class: `answer ${kind}`, id: "answer" }, told.answer));
  if (further.length) parts.append(element("ul", { class: "findings" }, ...further));
  return parts;
}

function ends() {
  const told = asked.answer;
  if (!told) return [];
  const lost = told.lost_between.map((each) => [`lost from ${each.source} to ${each.target}`, `${count(each.egress_full)} frames`]);
  const cards = told.ends.map((end) => {
    if (end.port === null) return element("div", { class: "end" }, element("h3", {}, end.said));
    const ages = end.macs.filter((each) => each.age_s !== null).map((each) => each.age_s);
    return element("div", { class: "end" }, element("h3", {}, end.name), chart(model.history.get(end.port) ?? []), list([
      ["state", end.stalled ? "stalled" : end.state], ["MAC", end.macs.map((each) => each.mac).join("\n") || "none seen"],
      ["last heard", ages.length ? `${duration(Math.min(...ages))} before` : ""], ["lease", end.leases.join("\n")],
      ["frames", end.rx ? `${count(end.rx.frames)} in, ${count(end.tx.frames)} out` : ""],
      ["dropped", Object.entries(end.drops).map(([reason, value]) => `${count(value)} ${reason}`).join("\n")],
    ]));
  });
  return [list([["path", told.path], ...lost]), element("div", { class: "ends" }, ...cards)];
}
