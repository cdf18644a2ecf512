"""The commands of a document, as a reader types them: block after block, in a home that is new.

A fenced block whose language is ``sh`` is typed as it stands by an ordinary user; the words behind ``sh`` say
what else there is to know:

    sh                  it ends, with status 0
    sh stays            it goes on in a terminal of its own until the end of the document
    sh attaches N       N more ports are there then
    sh as root          root types it
    sh not here: WHY    it is for another system, or for a program that Debian does not have

Everything happens in a network namespace and a mount namespace of the document's own, with an empty ``/run``.
Only blocks that install something see the machine's network.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.helpers.guests.ordinary import NOBODY, as_user
from tests.helpers.guests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.M | re.S)
COPIED = ("bulkhead.py", "forwarder", "gateway", "workers", "supervisor", "scripts", "contrib",
          "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")  # fmt: skip
INSTALLS = re.compile(r"pip install|^scripts/run +#", re.M)
INSTALL_S = 300.0


class Block(NamedTuple):
    """One fenced block."""

    line: int
    language: str
    words: str
    text: str

    @property
    def runs(self) -> bool:
        """Whether it is typed here."""
        return self.language == "sh" and not self.words.startswith("not here")

    @property
    def stays(self) -> bool:
        """Whether it goes on."""
        return "stays" in self.words

    @property
    def attaches(self) -> int:
        """How many ports it adds."""
        words = re.search(r"attaches (\d+)", self.words)
        return int(words[1]) if words else 0

    @property
    def as_root(self) -> bool:
        """Whether root types it."""
        return "as root" in self.words


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document."""
    return [
        Block(text.count("\n", 0, each.start()) + 1, each[1], each[2] or "", each[3])
        for each in FENCE.finditer(text)
    ]


class Reader:
    """Types blocks; ``close`` ends what is left of them and names it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._terminals: list[subprocess.Popen[bytes]] = []
        self._switches: list[Block] = []
        (home / "run").mkdir(mode=0o700)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", home / "disk.qcow2", "16M"], check=True)
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, home / name, ignore=ignored)
            else:
                shutil.copy(source, home)
        for path in [home, *home.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        script = "mount -t tmpfs -o mode=755 none /run; ip link set lo up; echo there; exec sleep infinity"
        self._place = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", script], stdout=subprocess.PIPE, text=True
        )
        assert self._place.stdout is not None
        assert self._place.stdout.readline() == "there\n"

    def type(self, block: Block) -> None:
        """Type one block and wait for its end, or, if it stays, for what it is there for."""
        wanted = self._ports(block) + block.attaches if block.attaches else 0
        output = self.home / f"output-{block.line}"
        with output.open("wb") as file:
            terminal = subprocess.Popen(
                self._command(block, ["bash", "-euo", "pipefail", "-c", block.text]),
                cwd=self.home,
                env=self._environment(block),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._terminals.append(terminal)
        if not block.stays:
            assert terminal.wait(INSTALL_S) == 0, output.read_text()
        elif re.search(r"(supervisor|scripts/run) run ", block.text):
            self._switches.append(block)
            wait_for(lambda: self._said_ready(terminal, output), "ready", PATIENCE)
        if wanted:
            wait_for(
                lambda: self._ports(block) >= wanted,
                lambda: f"{wanted} ports: {output.read_text()}",
                PATIENCE,
            )

    def close(self) -> None:
        """End everything; fail with the name of a process that outlives a clean stop of its switch."""
        for block in self._switches:
            directory = re.search(r"--runtime-dir \S+", block.text)
            self._said(block._replace(text=f"supervisor stop {directory[0] if directory else ''}"))
        for terminal in self._terminals:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(terminal.pid, signal.SIGTERM)
        for terminal in self._terminals:
            terminal.wait(PATIENCE)
        try:
            wait_for(lambda: not list(self._left()), "the end of all processes", PATIENCE)
        finally:
            for pid in self._left():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._place.kill()
            self._place.wait()

    def _command(self, block: Block, words: list[str]) -> list[str]:
        net = [] if INSTALLS.search(block.text) else ["--net"]
        enter = ["nsenter", f"--target={self._place.pid}", "--mount", *net, f"--wd={self.home}", "--"]
        return [*enter, *(words if block.as_root else as_user(NOBODY, words))]

    def _environment(self, block: Block) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        run = "/run" if block.as_root else str(self.home / "run")
        return {
            **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "LANG"))},
            "HOME": str(self.home),
            "PATH": path,
            "XDG_RUNTIME_DIR": run,
        }

    def _said(self, block: Block) -> str:
        return subprocess.run(
            self._command(block, ["sh", "-c", block.text]),
            cwd=self.home,
            env=self._environment(block),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        ).stdout

    def _said_ready(self, terminal: subprocess.Popen[bytes], output: Path) -> bool:
        assert terminal.poll() is None, output.read_text()
        return any(line.startswith("ready ") for line in output.read_text().splitlines())

    def _ports(self, block: Block) -> int:
        ask = Block(0, "sh", block.words, "supervisor status --json")
        return self._said(ask).count('"port":')

    def _left(self) -> Iterator[int]:
        mark = f"HOME={self.home}".encode()
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                        yield int(entry)


@contextlib.contextmanager
def reader(home: Path) -> Iterator[Reader]:
    """Give a reader with a home of that path, which is empty."""
    made = Reader(home)
    try:
        yield made
    finally:
        made.close()
