// The page: takes one round of answers a second from /events and draws it. It asks no other host, and puts what guests or
// operators have named into the page as text only, never as markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const HISTORY = 60;
const state = { answer: null, before: null, history: new Map(), chosen: null, sort: "port", down: false, find: "" };
const at = (id) => document.getElementById(id);

function element(kind, attributes = {}, text = "") {
  const made = kind.startsWith("svg:") ? document.createElementNS(SVG, kind.slice(4)) : document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== "") made.textContent = text;
  return made;
}

function scaled(value, units, step = 1000) {
  let unit = 0;
  while (value >= step && unit < units.length - 1) { value /= step; unit += 1; }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
const bits = (bytes) => scaled(bytes * 8, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]);
const octets = (bytes) => scaled(bytes, ["B", "KiB", "MiB", "GiB"], 1024);
const count = (value) => scaled(value, ["", "k", "M", "G"]).trim();
const sum = (values) => values.reduce((total, value) => total + value, 0);

function rates(answer, before) {
  const past = new Map((before?.stats.ports ?? []).map((port) => [port.port, port]));
  const macs = new Map(answer.status.ports.map((port) => [port.port, port]));
  return answer.stats.ports.map((port) => {
    const then = past.get(port.port);
    const same = then && then.since_s <= port.since_s;
    const seconds = before ? Math.max(answer.at - before.at, 0.001) : 1;
    const rate = (now, old) => (same ? Math.max(now - old, 0) / seconds : 0);
    const drops = sum(Object.values(port.drops));
    return {
      port: port.port, name: port.name, state: port.stalled ? "stalled" : port.state, raw: port,
      rx: rate(port.rx.bytes, then?.rx.bytes), tx: rate(port.tx.bytes, then?.tx.bytes),
      rxFrames: rate(port.rx.frames, then?.rx.frames), txFrames: rate(port.tx.frames, then?.tx.frames),
      drops, dropping: rate(drops, then ? sum(Object.values(then.drops)) : 0),
      queue: port.egress_queue_bytes, cpu: port.worker.cpu_percent ?? 0, memory: port.worker.pss_bytes ?? 0,
      macs: macs.get(port.port)?.macs ?? [], addresses: macs.get(port.port)?.addresses ?? [],
    };
  });
}

function classOf(row) {
  if (row.state === "stalled") return "stalled";
  if (row.state !== "live") return "away";
  return row.dropping > 0 ? "dropping" : "live";
}

function verdict(rows) {
  const wrong = (text) => ({ text, wrong: true });
  const named = (some) => some.slice(0, 3).map((row) => row.name).join(", ") + (some.length > 3 ? " and others" : "");
  const stalled = rows.filter((row) => row.state === "stalled");
  if (stalled.length > 0) return wrong(`${named(stalled)}: takes no frames`);
  const away = rows.filter((row) => row.state !== "live");
  if (away.length > 0) return wrong(`${named(away)}: ${away[0].state}`);
  const dropping = rows.filter((row) => row.dropping >= 1);
  if (dropping.length > 0) return wrong(`${named(dropping)}: loses ${count(sum(dropping.map((row) => row.dropping)))} frames a second`);
  const gateway = state.answer.stats.gateway;
  if (gateway && gateway.state !== "live") return wrong(`the gateway is ${gateway.state}`);
  return { text: rows.length === 0 ? "No VM is attached" : "All ports forward", wrong: false };
}

function show(list, pairs) {
  list.replaceChildren(...pairs.map(([name, value]) => {
    const row = element("div");
    row.append(element("dt", {}, name), element("dd", {}, value));
    return list.id === "totals" ? row : row.childNodes;
  }).flatMap((each) => (each instanceof NodeList ? [...each] : [each])));
}

function drawMap(rows) {
  const map = at("map"), many = rows.length;
  const radius = Math.max(150, (many * 46) / (2 * Math.PI)), size = radius + 60;
  const node = many > 60 ? 9 : 20, centre = 26;
  map.setAttribute("viewBox", `${-size} ${-size * 0.8} ${2 * size} ${1.6 * size}`);
  const place = (index) => {
    const angle = (2 * Math.PI * index) / Math.max(many, 1) - Math.PI / 2;
    return [radius * Math.cos(angle), radius * 0.72 * Math.sin(angle)];
  };
  const drawn = [element("svg:circle", { class: "hub", r: centre })];
  rows.forEach((row, index) => {
    const [x, y] = place(index), rate = row.rx + row.tx;
    const width = rate > 0 ? Math.min(1 + Math.log10(1 + rate / 125) * 1.6, 12) : 1;
    drawn.push(element("svg:path", { class: `flow${rate > 0 ? "" : " idle"}`, d: `M0 0L${x} ${y}`, "stroke-width": width }));
  });
  rows.forEach((row, index) => {
    const [x, y] = place(index);
    const group = element("svg:g", { class: `node ${classOf(row)}${row.port === state.chosen ? " chosen" : ""}`, transform: `translate(${x} ${y})` });
    const title = element("svg:title", {}, `${row.name}: ${row.state}, in ${bits(row.rx)}, out ${bits(row.tx)}`);
    group.append(title, element("svg:circle", { r: node }), element("svg:text", {}, many > 60 ? "" : String(row.port)));
    if (many <= 60) group.append(element("svg:text", { y: node + 12 }, row.name.length > 14 ? `${row.name.slice(0, 13)}…` : row.name));
    group.addEventListener("click", () => choose(row.port));
    drawn.push(group);
  });
  map.replaceChildren(...drawn);
}

function spark(values) {
  const most = Math.max(...values, 1), step = 100 / (HISTORY - 1);
  const path = values.map((value, index) => `${index ? "L" : "M"}${((HISTORY - values.length + index) * step).toFixed(1)} ${(19 - (18 * value) / most).toFixed(1)}`);
  const drawing = element("svg:svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" });
  drawing.append(element("svg:path", { d: path.join(""), "vector-effect": "non-scaling-stroke" }));
  return drawing;
}

function drawTable(rows) {
  const wanted = state.find.toLowerCase();
  const found = rows.filter((row) => `${row.name} ${row.state} ${row.macs.join(" ")} ${row.addresses.join(" ")}`.toLowerCase().includes(wanted));
  found.sort((one, other) => {
    const [a, b] = [one[state.sort], other[state.sort]];
    const order = typeof a === "string" ? a.localeCompare(b) : b - a;
    return (state.sort === "port" ? one.port - other.port : order) * (state.down ? -1 : 1);
  });
  at("ports").replaceChildren(...found.map((row) => {
    const line = element("tr", { class: `${classOf(row)}${row.port === state.chosen ? " chosen" : ""}`, "data-port": row.port });
    const cell = (text, kind = "") => line.append(element("td", kind ? { class: kind } : {}, text));
    cell(String(row.port)); cell(row.name); cell(row.state); cell(bits(row.rx), "number"); cell(bits(row.tx), "number");
    const trend = element("td", { class: "wide" });
    trend.append(spark(state.history.get(row.port) ?? [0]));
    line.append(trend);
    cell(row.queue ? octets(row.queue) : "", "number"); cell(row.drops ? count(row.drops) : "", "number drops");
    cell(`${row.cpu.toFixed(1)} %`, "number wide"); cell(row.memory ? octets(row.memory) : "", "number wide");
    line.addEventListener("click", () => choose(row.port));
    return line;
  }));
  for (const head of document.querySelectorAll("th button")) {
    const cell = head.parentElement;
    if (head.dataset.sort === state.sort) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
}

function drawDetail(rows) {
  const row = rows.find((each) => each.port === state.chosen);
  at("detail").hidden = !row;
  if (!row) return;
  at("detail-title").textContent = `Port ${row.port}: ${row.name}`;
  show(at("facts"), [
    ["transport", row.raw.transport], ["state", row.state], ["attached for", `${Math.round(row.raw.since_s)} s`],
    ["MAC addresses", row.macs.join(" ") || "none yet"], ["IP addresses", row.addresses.join(" ") || "unknown"],
    ["in", `${bits(row.rx)}, ${count(row.rxFrames)} frames/s`], ["out", `${bits(row.tx)}, ${count(row.txFrames)} frames/s`],
    ["worker", `${row.raw.worker.pid ?? "none"}, restarted ${row.raw.worker.restarts} times`],
  ]);
  const reasons = Object.entries(row.raw.drops).filter(([, value]) => value > 0);
  show(at("reasons"), reasons.length ? reasons.map(([reason, value]) => [reason, count(value)]) : [["none", ""]]);
}

function drawGateway() {
  const gateway = state.answer.stats.gateway;
  at("gateway").hidden = !gateway;
  if (!gateway) return;
  const pairs = (group, word) => Object.entries(gateway[group] ?? {}).map(([name, value]) => [`${word}${name}`, count(value)]);
  show(at("flows"), [["state", gateway.state], ...pairs("flows", "open "), ...pairs("refused", "refused ").filter(([, value]) => value !== "0")]);
}

function draw() {
  const { answer } = state;
  if (!answer) return;
  if (answer.error) {
    at("verdict").textContent = `The switch does not answer: ${answer.error}`;
    at("verdict").className = "wrong";
    return;
  }
  const rows = rates(answer, state.before);
  const said = verdict(rows);
  at("name").textContent = answer.status.name;
  document.title = `${answer.status.name}: ${said.text}`;
  at("verdict").textContent = said.text;
  at("verdict").className = said.wrong ? "wrong" : "";
  show(at("totals"), [["ports", String(rows.length)], ["in", bits(sum(rows.map((row) => row.rx)))],
    ["drops", `${count(sum(rows.map((row) => row.dropping)))}/s`], ["up", `${Math.round(answer.stats.uptime_s)} s`]]);
  drawMap(rows); drawTable(rows); drawDetail(rows); drawGateway();
  return rows;
}

function take(answer) {
  state.before = state.answer && !state.answer.error ? state.answer : null;
  state.answer = answer;
  if (!answer.error) {
    const present = new Set();
    for (const row of rates(answer, state.before)) {
      const past = state.history.get(row.port) ?? [];
      past.push(row.rx + row.tx);
      state.history.set(row.port, past.slice(-HISTORY));
      present.add(row.port);
    }
    for (const port of state.history.keys()) if (!present.has(port)) state.history.delete(port);
  }
  draw();
}

function choose(port) { state.chosen = state.chosen === port ? null : port; draw(); }

function step(by) {
  const ports = [...document.querySelectorAll("#ports tr")].map((line) => Number(line.dataset.port));
  if (ports.length === 0) return;
  const now = ports.indexOf(state.chosen);
  state.chosen = ports[now < 0 ? 0 : Math.min(Math.max(now + by, 0), ports.length - 1)];
  draw();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target === at("find");
  if (event.key === "Escape") { state.chosen = null; at("find").blur(); draw(); }
  else if (!typing && event.key === "/") { event.preventDefault(); at("find").focus(); }
  else if (!typing && event.key === "ArrowDown") { event.preventDefault(); step(1); }
  else if (!typing && event.key === "ArrowUp") { event.preventDefault(); step(-1); }
});
at("find").addEventListener("input", (event) => { state.find = event.target.value; draw(); });
for (const head of document.querySelectorAll("th button"))
  head.addEventListener("click", () => {
    state.down = state.sort === head.dataset.sort ? !state.down : false;
    state.sort = head.dataset.sort;
    draw();
  });

const events = new EventSource("events");
events.onmessage = (event) => take(JSON.parse(event.data));
events.onerror = () => {
  at("verdict").textContent = "The page's own process does not answer; it is asked again";
  at("verdict").className = "wrong";
};
