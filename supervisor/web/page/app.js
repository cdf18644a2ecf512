// The page: takes what the switch says from /events, once a second, and has it drawn. It asks no other host.

import { at, bits, count, duration, sum, write } from "./dom.js";
import { choose, model, takes, verdict } from "./model.js";
import { drawCaptures, drawScope } from "./capture.js";
import { drawEvents, drawGateway } from "./log.js";
import { drawInspector } from "./inspector.js";
import { drawMap } from "./map.js";
import { drawTable, sortBy, step } from "./table.js";

const AGAIN_MS = 5000;

function drawHead() {
  const said = verdict();
  write(at("name"), model.head?.name || "bulkhead");
  write(at("verdict"), said.text);
  at("verdict").className = said.kind;
  document.body.classList.toggle("away", Boolean(model.away));
  document.title = `${said.text} · ${at("name").textContent}`;
  write(at("total-ports"), String(model.rows.length));
  write(at("total-in"), bits(sum(model.rows.map((row) => row.rx))));
  write(at("total-drops"), `${count(sum(model.rows.map((row) => row.dropping)))}/s`);
  write(at("total-up"), duration(model.uptime));
}

function draw() {
  drawHead();
  drawMap(); drawTable(); drawInspector(); drawScope(); drawCaptures(); drawEvents(); drawGateway();
}

// The browser connects again by itself when the connection breaks, but not when it was refused.
function listen() {
  const events = new EventSource("events");
  for (const name of ["now", "ports", "live", "happened", "away"])
    events.addEventListener(name, (event) => {
      takes[name](JSON.parse(event.data));
      if (name !== "ports") draw();
    });
  events.onerror = async () => {
    model.away = "The page's own process does not answer; it is asked again";
    if (events.readyState === EventSource.CLOSED) {
      setTimeout(listen, AGAIN_MS);
      const why = await fetch("events", { signal: AbortSignal.timeout(AGAIN_MS) }).then((response) => (response.ok ? "" : response.text()), () => "");
      if (why) model.away = why.trim();
    }
    drawHead();
  };
}

const KEYS = {
  "/": () => at("find").focus(), ArrowDown: () => step(1), ArrowUp: () => step(-1),
  c: () => at("filter").focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const line = event.target.closest?.("#ports tr");
  if (event.key === "Escape") { model.chosen = []; document.activeElement.blur(); draw(); }
  else if (event.target.matches("input")) return;
  else if (line && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); choose(Number(line.dataset.port)); draw(); }
  else if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
});
document.addEventListener("chosen", draw);
at("find").addEventListener("input", (event) => { model.find = event.target.value; draw(); });
for (const button of document.querySelectorAll("th button"))
  button.addEventListener("click", () => { sortBy(button.dataset.sort); draw(); });
addEventListener("resize", draw);

draw();
listen();
