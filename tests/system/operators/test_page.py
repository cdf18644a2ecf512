"""The page in a real browser: VMs talk, get stuck, leave; explain, captures, the switch killed and back."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fixtures import StartSwitch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.scene import Scene, playing
from tests.helpers.web import ANSWERS_S, Browser, Web, browser

pytestmark = pytest.mark.guest


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Browser]:
    requirements.require(("chromium",))
    with browser(downloads=tmp_path) as made:
        yield made


@pytest.fixture
def scene(switch: StartSwitch) -> Iterator[Scene]:
    with playing(switch()) as made:
        yield made


@pytest.fixture
def served(scene: Scene) -> Iterator[Web]:
    with contextlib.closing(Web(scene.switch.runtime_dir)) as made:
        yield made


def choose(page: Browser, *ports: int) -> None:
    page.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    for port in ports:
        page.click(f"#ports tr[data-port='{port}']")


def test_vms_talk_one_is_stuck_and_one_leaves(page: Browser, scene: Scene, served: Web) -> None:
    for name in ("alice", "bob", "carol"):
        scene.add(name)
    scene.switch.wait_live(3)
    scene.greet()
    scene.talk({("alice", "bob"): 50_000, ("bob", "alice"): 10_000})
    page.open(served.url)
    wait_for(lambda: page.text("#ports tr td:nth-child(2)"), "rows", ANSWERS_S)
    page.wait("#verdict", "All ports forward")
    assert sorted(page.text("#map .node .name")) == ["alice", "bob", "carol"]
    page.wait("#map .talk title", "alice and bob: ")
    assert len(page.text("#map .talk")) == 1
    choose(page, 1)
    page.wait("#inspector-body", scene.mac("alice").hex(":"))
    page.wait("#inspector-body", "bob ")
    scene.leave("carol")
    wait_for(lambda: len(page.text("#ports tr")) == 2, "a port less", ANSWERS_S)
    page.wait("#events .said", "carol")
    scene.add("dave", deaf=True)
    scene.switch.wait_live(3)
    scene.greet()
    scene.talk({("alice", "dave"): 4_000_000})
    page.wait("#map .node.stalled .name", "dave", 60)
    page.wait("#verdict.stalled", "dave: its VM takes no frames")
    page.wait("#events .serious .kind", "stall")
    choose(page, int(page.text("#ports tr.stalled td")[0]))
    page.wait("#inspector-body .reason", "egress_full")
    assert page.errors() == []
    assert page.hosts() == {f"127.0.0.1:{served.port}"}


def test_the_last_hour_of_a_port(page: Browser, scene: Scene, served: Web) -> None:
    for name in ("alice", "bob"):
        scene.add(name)
    scene.switch.wait_live(2)
    scene.greet()
    scene.talk({("alice", "bob"): 50_000})
    answer = json.loads(served.get("/api/history?port=1&span=hour")[1])
    assert (answer["port"], answer["seconds"], len(answer["rx_bytes"])) == (1, 60, 60)
    for path, status in (("port=9", 404), ("port=x", 400), ("port=1&span=year", 400), ("", 400)):
        assert served.get(f"/api/history?{path}")[0] == status
    page.open(served.url)
    wait_for(lambda: len(page.text("#ports tr")) == 2, "two ports", ANSWERS_S)
    choose(page, 1)
    page.wait(".chart .from", "a minute ago")
    page.click("#inspector .spans button:last-child")
    page.wait(".chart .from", "an hour ago")
    assert page.errors() == []


def test_explain_for_two_that_are_clicked(page: Browser, scene: Scene, served: Web) -> None:
    for name in ("alice", "bob"):
        scene.add(name)
    scene.switch.wait_live(2)
    scene.greet()
    page.open(served.url)
    wait_for(lambda: len(page.text("#map .node")) == 2, "two ports", ANSWERS_S)
    for port in (1, 2):
        page.click(f"#map .node[data-port='{port}']")
    page.wait("#inspector-title", "alice → bob")
    page.wait("#answer.can", "alice can reach bob")
    scene.switch.command("set", "alice", "isolated=true")
    page.click("#inspector-body button.quiet")
    page.wait("#answer.cannot", "alice is isolated, and bob is not in its reach")


def test_a_capture_is_downloaded_and_read(page: Browser, scene: Scene, served: Web, tmp_path: Path) -> None:
    requirements.require(("tshark", "libpcap"))
    for name in ("alice", "bob"):
        scene.add(name)
    scene.switch.wait_live(2)
    scene.greet()
    scene.talk({("alice", "bob"): 40_000})
    page.open(served.url)
    wait_for(lambda: len(page.text("#ports tr")) == 2, "two ports", ANSWERS_S)
    page.run("document.querySelector('#filter').value = 'tcp prt 1'")
    page.click("#capture button")
    page.wait("#captures .error", "does not compile")
    choose(page, 2)
    page.run("document.querySelector('#filter').value = 'greater 1000'")
    page.click("#capture button")
    page.wait("#captures .runs .size", "KiB")
    page.click("#captures .runs button")
    page.wait("#captures .done .button", "Download")
    page.click("#captures .done .button")
    file = tmp_path / "bob.pcapng"
    wait_for(file.exists, "the file", ANSWERS_S)
    fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "eth.src", "-e", "frame.len"]
    done = subprocess.run(["tshark", "-r", file, *fields], capture_output=True, text=True, check=True)
    seen = {tuple(line.split("\t")) for line in done.stdout.splitlines()}
    assert seen == {("bob", scene.mac("alice").hex(":"), "1514")}


def test_the_switch_is_killed_and_comes_back(page: Browser, scene: Scene, served: Web) -> None:
    scene.add("alice")
    scene.add("bob")
    scene.switch.wait_live(2)
    page.open(served.url)
    page.wait("#verdict", "All ports forward")
    assert scene.switch.process is not None
    scene.switch.process.kill()
    scene.switch.process.wait()
    page.wait("#verdict.away", "no supervisor runs in")
    assert len(page.text("#ports tr")) == 2
    scene.switch.start()
    page.wait("#verdict.live", "All ports forward", 60)
    page.wait("#events .kind", "takeover")


def test_markup_in_a_name_is_text(page: Browser, scene: Scene, served: Web) -> None:
    """No port can have such a name, but a log line of a hostile worker can contain it."""
    scene.add("alice")
    scene.switch.wait_live(1)
    page.open(served.url)
    page.wait("#verdict", "All ports forward")
    evil = "<img src=x onerror=\"document.title='broken'\"><b>bold</b>"
    page.run(
        "return import('./model.js').then(({model, takes}) => {"
        " const evil = arguments[0], head = model.head;"
        " Object.assign(head.ports[0], {name: evil, macs: [evil]});"
        " takes.ports({...head, name: evil});"
        " const event = {time: 1, event: evil, level: 'info', message: evil};"
        " takes.happened({anew: false, events: [event]});"
        " document.dispatchEvent(new Event('chosen')); })",
        evil,
    )
    page.click("#ports tr")
    page.wait("#events .said", evil)
    page.wait("#name", evil)
    assert page.text("img:not([src='icon.svg']), main b:not(#scope):not(#captures b)") == []


def test_250_ports_are_grouped_and_found(page: Browser, scene: Scene, served: Web) -> None:
    scene.add("web", 45)
    scene.add("db")
    scene.switch.wait_live(46)
    page.open(served.url)
    wait_for(lambda: len(page.text("#map .node")) == 46, "all ports", ANSWERS_S)
    assert page.text("#map .group") == ["web · 45"]
    find = "document.querySelector('#find')"
    page.run(f"{find}.value = 'web-12'; {find}.dispatchEvent(new Event('input'))")
    wait_for(lambda: page.text("#ports tr td:nth-child(2)") == ["web-12"], "what was found", ANSWERS_S)
    assert len(page.text("#map .node:not(.dim)")) == 1


def test_a_phone_has_nothing_beside_the_screen(page: Browser, scene: Scene, served: Web) -> None:
    for name in ("alice", "a-name-that-is-much-longer-than-a-phone-is-wide-and-goes-on"):
        scene.add(name)
    page.size(375, 812, phone=True)
    page.open(served.url)
    wait_for(lambda: len(page.text("#ports tr")) == 2, "two ports", ANSWERS_S)
    choose(page, 1, 2)
    page.wait("#inspector-title", "→")
    assert page.run("return document.documentElement.scrollWidth") <= 375


def test_a_keyboard_is_enough(page: Browser, scene: Scene, served: Web) -> None:
    for name in ("alice", "bob"):
        scene.add(name)
    page.open(served.url)
    wait_for(lambda: len(page.text("#ports tr")) == 2, "two ports", ANSWERS_S)
    page.press("ARROW_DOWN", "ENTER")
    page.wait("#inspector-title", page.text("#ports tr:first-child td:nth-child(2)")[0])
    page.press("ARROW_DOWN", "ENTER")
    page.wait("#inspector-title", "→")
    page.press("ESCAPE")
    page.wait("#inspector-title", "The switch")
    page.press("/", *"bob")
    wait_for(lambda: page.text("#ports tr td:nth-child(2)") == ["bob"], "what was found", ANSWERS_S)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(page: Browser, served: Web, scheme: str) -> None:
    """WCAG 2.1, 1.4.3: the contrast of text is at least 4.5."""
    page.emulate(prefers_color_scheme=scheme)
    page.open(served.url)
    names = ("ink", "faint", "live", "stalled", "dropping", "away", "panel", "ground", "sunk")
    script = "return getComputedStyle(document.documentElement).getPropertyValue(`--${arguments[0]}`)"
    colours = {name: luminance(page.run(script, name).strip()) for name in names}
    assert (colours["ground"] > colours["ink"]) == (scheme == "light")
    for word in names[:6]:
        for ground in ("panel", "ground", *(["sunk"] if word in ("ink", "faint") else [])):
            light, dark = sorted((colours[word], colours[ground]), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (word, ground)


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
