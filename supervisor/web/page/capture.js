// Captures: started here, stopped here, and kept by the browser until the page is closed. A capture is the body of an answer
// that goes on until it is stopped.

import { at, duration, element, octets, write } from "./dom.js";
import { model } from "./model.js";

const captures = [];
const MOST_KEPT = 8;

const nameOf = (port) => model.rows.find((row) => row.port === port)?.name ?? `port ${port}`;

export function drawScope() {
  const names = model.chosen.map(nameOf);
  write(at("scope"), names.length ? names.join(" and ") : "all ports");
}

async function start() {
  const ports = [...model.chosen], filter = at("filter").value.trim();
  const label = ports.map(nameOf).join(" and ") || "all ports";
  const capture = { label, filter, bytes: 0, pieces: [], id: null, began: Date.now(), state: "starts", error: "", url: "" };
  captures.unshift(capture);
  for (const old of captures.splice(MOST_KEPT)) if (old.url) URL.revokeObjectURL(old.url);
  drawCaptures();
  try {
    const body = JSON.stringify({ ports, filter });
    const response = await fetch("api/capture", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (!response.ok) throw new Error((await response.text()).trim());
    Object.assign(capture, { id: response.headers.get("Capture-Id"), state: "runs", began: Date.now() });
    await take(capture, response.body.getReader());
  } catch (error) {
    if (!capture.bytes) capture.error = error.message;
  }
  if (capture.bytes) capture.url = URL.createObjectURL(new Blob(capture.pieces, { type: "application/x-pcapng" }));
  Object.assign(capture, { state: capture.error ? "failed" : "done", pieces: [], took: (Date.now() - capture.began) / 1000 });
  drawCaptures();
}

async function take(capture, reader) {
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    capture.pieces.push(value);
    capture.bytes += value.length;
  }
}

async function stop(capture) {
  capture.state = "stops";
  drawCaptures();
  await fetch(`api/capture/${capture.id}/stop`, { method: "POST" }).catch(() => {});
}

const fileName = (capture) => `${capture.label.replace(/[^\w.-]+/g, "-")}.pcapng`;

function line(capture) {
  const since = duration(capture.took ?? (Date.now() - capture.began) / 1000);
  const words = element("span", { class: "what" }, element("b", {}, capture.label), capture.filter ? element("code", {}, capture.filter) : "");
  const made = element("li", { class: capture.state }, words);
  if (capture.state === "failed") made.append(element("span", { class: "error" }, capture.error));
  else made.append(element("span", { class: "size" }, `${octets(capture.bytes)}, ${since}`));
  if (capture.state === "runs") {
    const button = element("button", { type: "button" }, "Stop");
    button.addEventListener("click", () => stop(capture));
    made.append(button);
  }
  if (capture.state === "done" && capture.url)
    made.append(element("a", { class: "button", href: capture.url, download: fileName(capture) }, "Download"));
  return made;
}

export function drawCaptures() {
  const text = JSON.stringify(captures.map(({ state, bytes, began, took }) => [state, bytes, took ?? Math.round((Date.now() - began) / 1000)]));
  if (at("captures").dataset.shown === text) return;
  at("captures").dataset.shown = text;
  const inside = at("captures").contains(document.activeElement);
  at("captures").replaceChildren(...captures.map(line));
  if (inside) at("captures").querySelector("button, a")?.focus();
}

at("capture").addEventListener("submit", (event) => { event.preventDefault(); start(); });
