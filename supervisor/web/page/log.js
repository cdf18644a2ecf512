// What has happened, the newest first; the gateway and its leases.

import { at, clock, count, element, facts, write } from "./dom.js";
import { model } from "./model.js";

const SERIOUS = new Set(["stall", "spoof", "storm", "asks", "limit", "isolated", "guard", "mac-flapping", "parked", "cell-refused", "restart"]);
const MOST = 80;
let last = null, leases = "";

function line(event) {
  const kind = event.level === "error" || SERIOUS.has(event.event) ? "serious" : event.level === "warning" ? "warning" : "";
  const time = element("time", { datetime: new Date(event.time * 1000).toISOString() }, clock(event.time));
  const more = event.more ? ` (${event.more} more like it)` : "";
  return element("li", { class: kind }, time, element("span", { class: "kind" }, event.event), element("span", { class: "said" }, `${event.message}${more}`));
}

export function drawEvents() {
  if (last === model.events) return;
  last = model.events;
  const shown = model.events.filter((event) => event.event !== "message" || event.level !== "info").slice(-MOST).reverse();
  at("events").replaceChildren(...shown.map(line));
  at("no-events").hidden = shown.length > 0;
}

export function drawGateway() {
  const { gateway } = model;
  at("gateway").hidden = !gateway;
  if (!gateway) return;
  const { flows = {}, refused = {} } = model.head?.gateway ?? {};
  const words = (counted) => Object.entries(counted).filter(([, value]) => value).map(([name, value]) => `${count(value)} ${name.replaceAll("_", " ")}`).join(", ");
  facts(at("gateway-facts"), [["state", gateway.state], ["open", words(flows) || "nothing"], ["refused", words(refused) || "nothing"]]);
  const text = JSON.stringify(model.leases);
  if (leases === text) return;
  leases = text;
  write(at("lease-count"), String(model.leases.length));
  at("leases").replaceChildren(...model.leases.map((lease) => element("tr", {},
    element("td", { class: "mono" }, lease.address), element("td", {}, lease.name ?? lease.hostname ?? ""),
    element("td", {}, lease.port_name ?? "gone"), element("td", { class: "mono" }, lease.mac))));
  at("lease-table").hidden = model.leases.length === 0;
}
