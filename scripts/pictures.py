"""The pictures of the page: what is played for them, and how each is taken."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.guests.fixtures import running_switch
from tests.helpers.guests.switch import ROOT
from tests.helpers.guests.waiting import wait_for
from tests.helpers.scene import Scene, playing
from tests.helpers.web import Browser, Web, browser

TARGET = ROOT / "docs" / "screenshots"
PLAYS_S = 45.0
"""Until the charts of the last minute have something to show."""
KIB, MIB = 1 << 10, 1 << 20


def main() -> None:
    """Make all pictures in the directory that is named, or in docs/screenshots."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.mkdir(parents=True, exist_ok=True)
    with browser(1440, 1000) as page:
        few(page, target)
        many(page, target)


def few(page: Browser, target: Path) -> None:
    """Show some VMs, one of which is stuck: light, dark, and on a phone."""
    with stage("--gateway") as (scene, web):
        names = ("alice", "bob", "carol", "dave", "build-1", "build-2", "registry", "mail")
        for name in names:
            scene.add(name, deaf=name == "dave")
        scene.switch.wait_live(len(names) + 1)
        scene.greet()
        for name in names[:-1]:
            scene.lease(name)
        scene.switch.command("set", "mail", "isolated=true")
        talks = {
            ("alice", "bob"): 3 * MIB, ("bob", "alice"): 900 * KIB, ("carol", "alice"): 120 * KIB,
            ("build-1", "registry"): 60 * KIB, ("registry", "build-1"): 4 * MIB,
            ("build-2", "registry"): 30 * KIB, ("registry", "build-2"): 2 * MIB,
            ("alice", "dave"): 500 * KIB, ("carol", "registry"): 15 * KIB,
        }  # fmt: skip
        page.open(web.url)
        waves(scene, talks)
        page.wait("#map .node.stalled .name", "dave", 60)
        capture(page, "arp or icmp")
        page.click("#captures .runs button")
        page.wait("#captures .done .button", "Download")
        choose(page, "dave")
        capture(page, "")
        picture(page, target / "light.png", "light", 1440, 1530)
        choose(page, "alice", "mail")
        page.wait("#answer", "mail is isolated")
        picture(page, target / "dark.png", "dark", 1440, 1120)
        choose(page, "alice")
        picture(page, target / "phone.png", "light", 390, 844, phone=True)


def capture(page: Browser, expression: str) -> None:
    """Start a capture of what is chosen."""
    page.run("document.querySelector('#filter').value = arguments[0]", expression)
    page.click("#capture button")
    page.wait("#captures .runs .size", "B, ")


def many(page: Browser, target: Path) -> None:
    """Show 250 VMs in groups."""
    with stage() as (scene, web):
        for name, count in (("web", 120), ("worker", 80), ("db", 30), ("cache", 19)):
            scene.add(name, count)
        scene.add("legacy", deaf=True)
        wait_for(lambda: len(scene.switch.ports()) == 250, "all ports", 120)
        scene.switch.wait_live(250, 120)
        scene.greet()
        talks = {
            (f"web-{each}", f"db-{2 + each % 12}"): 20 * KIB * (each % 7 + 1) for each in range(2, 60, 3)
        }
        talks |= {
            (f"worker-{each}", f"cache-{2 + each % 6}"): 12 * KIB * (each % 5 + 1) for each in range(2, 50, 4)
        }
        talks |= {("worker", "legacy"): 500 * KIB, ("db", "web"): 900 * KIB}
        page.open(web.url)
        waves(scene, talks)
        page.wait("#map .node.stalled .name", "legacy", 60)
        picture(page, target / "many.png", "light", 1440, 1120)


@contextlib.contextmanager
def stage(*flags: str) -> Iterator[tuple[Scene, Web]]:
    """Give a scene on a new switch, and its page."""
    with running_switch() as switch:
        switch.start("--name", "lab", *flags)
        with playing(switch) as scene, contextlib.closing(Web(switch.runtime_dir)) as web:
            yield scene, web


def waves(scene: Scene, talks: dict[tuple[str, str], int]) -> None:
    """Have the VMs talk for a while, more and less."""
    end = time.monotonic() + PLAYS_S
    for turn in range(sys.maxsize):
        left = end - time.monotonic()
        if left <= 0:
            break
        scene.talk(
            {pair: int(rate * (0.5 + ((turn * 7 + hash(pair)) % 10) / 10)) for pair, rate in talks.items()}
        )
        time.sleep(min(left, 3.0))


def choose(page: Browser, *names: str) -> None:
    """Choose ports by their names."""
    page.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    for name in names:
        lines = "[...document.querySelectorAll('#ports tr')]"
        page.run(f"{lines}.find((line) => line.cells[1].textContent === arguments[0]).click()", name)


def picture(page: Browser, file: Path, scheme: str, width: int, height: int, *, phone: bool = False) -> None:
    """Take a picture of the top of the page."""
    page.emulate(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    page.size(width, height, scale=2 if phone else 1, phone=phone)
    time.sleep(2.5)  # two rounds of answers, drawn in the new size
    shot = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    words = ["pngquant", "--strip", "--speed", "1", "--output", file, "--force", "-"]
    subprocess.run(words, input=base64.b64decode(shot["data"]), check=True)
    print(file, file.stat().st_size >> 10, "KiB")


if __name__ == "__main__":
    main()
