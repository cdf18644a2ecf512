"""``supervisor web`` as a process, and the page in a real browser; nothing here waits without an end."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.helpers.guests.switch import ROOT
from tests.helpers.guests.waiting import PATIENCE, wait_for

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
WORDS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-sync", "--disable-background-networking", "--disable-component-update",
         "--disable-dev-shm-usage", "--hide-scrollbars")  # fmt: skip
ANSWERS_S = PATIENCE
"""The driver's patience with a page and with a script; a headless browser can hang."""


class Web:
    """One ``supervisor web``."""

    def __init__(self, runtime_dir: Path, *words: str) -> None:
        """Start it; without ``words`` on any free port of loopback."""
        words = words or ("--listen", "tcp://127.0.0.1:0")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bulkhead", "web", "--runtime-dir", str(runtime_dir), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()

    @property
    def port(self) -> int:
        """The port on loopback."""
        found = re.fullmatch(r"ready http://[\d.]+:(\d+)/\n", self.ready)
        assert found, self.ready
        return int(found[1])

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}/"

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Ask for a path; return the status and the body."""
        return self.request("GET", path, **headers)

    def request(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
        """Make a request; return the status and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def close(self) -> None:
        """End it as systemd does; it must end in good order and have said nothing."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert (self.process.returncode, errors) == (0, ""), (self.process.returncode, errors)


class Browser:
    """A headless Chromium that shows one page."""

    def __init__(self, width: int = 1400, height: int = 900, *, downloads: Path | None = None) -> None:
        """Start it; files that it downloads go to ``downloads``."""
        # Where selenium is not installed there is no browser either.
        from selenium import webdriver  # noqa: PLC0415
        from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for word in (*WORDS, f"--window-size={width},{height}"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        if downloads is not None:
            options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        self.driver: Any = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_page_load_timeout(ANSWERS_S)
        self.driver.set_script_timeout(ANSWERS_S)

    def open(self, url: str) -> None:
        """Load a page."""
        self.driver.get(url)

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page; return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> list[str]:
        """Return the text of each element that matches."""
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
        found: list[str] = self.run(script, selector)
        return found

    def click(self, selector: str) -> None:
        """Click on the first element that matches, even if it is outside the window."""
        event = "new MouseEvent('click', {bubbles: true, cancelable: true})"
        self.run(f"document.querySelector(arguments[0]).dispatchEvent({event})", selector)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other: a character, or the name of a key of selenium's ``Keys``."""
        from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415
        from selenium.webdriver.common.keys import Keys  # noqa: PLC0415

        for key in keys:
            ActionChains(self.driver).send_keys(getattr(Keys, key) if len(key) > 1 else key).perform()

    def wait(self, selector: str, words: str, seconds: float = ANSWERS_S) -> str:
        """Wait until an element that matches has these words; return its text."""
        found: list[str] = []

        def has() -> bool:
            found[:] = [each for each in self.text(selector) if words in each]
            return bool(found)

        wait_for(has, lambda: f"{words!r} in {selector}: {self.text(selector)}", seconds)
        return found[0]

    def emulate(self, **features: str) -> None:
        """Show the page as for a reader with these wishes, such as ``prefers_color_scheme="dark"``."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})

    def size(self, width: int, height: int, *, scale: float = 1, phone: bool = False) -> None:
        """Set the size of the page in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def errors(self) -> list[str]:
        """Return what the page has complained about since the last time."""
        return [each["message"] for each in self.driver.get_log("browser") if each["level"] == "SEVERE"]

    def hosts(self) -> set[str]:
        """Return the hosts that the page has asked since the last time."""
        messages = [json.loads(each["message"])["message"] for each in self.driver.get_log("performance")]
        sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        urls = [each["request"]["url"] for each in sent]
        return {url.split("/")[2] for url in urls if not url.startswith(("data:", "blob:"))}

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()


@contextlib.contextmanager
def browser(*size: int, downloads: Path | None = None) -> Iterator[Browser]:
    """Give a browser that is gone afterwards."""
    made = Browser(*size, downloads=downloads)
    try:
        yield made
    finally:
        made.close()
