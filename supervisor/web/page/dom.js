// Elements and words: how the page makes the one and writes the other. What guests or operators have named is put in as
// text only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

// element("li", { class: "wrong" }, "text", another element, …); "svg:path" makes an element of a drawing.
export function element(kind, attributes = {}, ...children) {
  const made = kind.startsWith("svg:") ? document.createElementNS(SVG, kind.slice(4)) : document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== "" && child != null));
  return made;
}

// Write only what is different, so that a browser paints only that.
export function write(node, text) { if (node.textContent !== text) node.textContent = text; }
export function mark(node, name, value) { if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value); }

export function facts(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

export const sum = (values) => values.reduce((total, value) => total + value, 0);

function scaled(value, units, step) {
  let unit = 0;
  while (value >= step && unit < units.length - 1) { value /= step; unit += 1; }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)}\u202f${units[unit]}`.trim();
}
export const bits = (bytes) => (bytes ? scaled(bytes * 8, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"], 1000) : "0");
export const octets = (bytes) => scaled(bytes, ["B", "KiB", "MiB", "GiB"], 1024);
export const count = (value) => scaled(value, ["", "k", "M", "G"], 1000);

export function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60]];
  const found = units.findIndex(([, size]) => seconds >= size);
  if (found < 0) return `${Math.round(seconds)} s`;
  const [unit, size] = units[found], rest = Math.floor((seconds % size) / (units[found + 1]?.[1] ?? 1));
  const smaller = units[found + 1]?.[0] ?? "s";
  return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
}

export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
