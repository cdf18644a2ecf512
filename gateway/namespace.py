"""The client of the namespace's process: starts it, and asks it for sockets of the namespace.

An ordinary user gets a user namespace around the network namespace. It has every right inside and none
outside. The creator of a user namespace has all rights in it from outside, too, so the host side may set
options on the sockets that it receives.

A PID namespace surrounds both: the kernel kills every process in it when the namespace's process ends,
however it ends.

The process enters its cell when it has made everything (``gateway.inside``), and says what of it is in force.
The host side is in one, too, by the time that guests come, and cannot end another process any more: the
supervisor has ``pidfd`` for that.

``unshare`` (util-linux, on every Debian) does what Python can do from 3.12 on only.
"""

import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import cast

from forwarder.channel import ChannelClosedError, close_all
from forwarder.errors import LocalError, PeerError
from forwarder.future import Future
from forwarder.loop import Loop
from forwarder.loop_channel import LoopChannel
from forwarder.messages import Command, Handover, Message, Reply
from gateway.stock import Deliver, Stock

START_S = 15.0
"""The namespace is ready after a third of a second, mostly imports; a loaded machine needs seconds."""

NEEDED = {"unshare": "util-linux", "nft": "nftables"}
"""The programs that are needed, and their Debian packages."""

USER = ("--user", "--map-root-user")
PIDS = ("--pid", "--fork", "--kill-child")


class Holder:
    """The namespace, seen from the host side."""

    def __init__(
        self,
        loop: Loop,
        lost: Callable[[str], None],
        log: Callable[[str, str], None],
        refused: Callable[[int, int], None],
    ) -> None:
        """Prepare. ``lost``: the namespace is gone, and why; ``log``: (level, text) for the operator.

        ``refused``: the cell of the process inside has refused so many calls; and the number of the last.
        """
        self._refused = refused
        self._loop = loop
        self._lost = lost
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: LoopChannel | None = None
        self._stock = Stock(self._ask_for_sockets)
        self._words = b""
        self._failure = ""
        self._answers: list[Callable[[Reply], None]] = []
        self.pidfd = -1
        """Of the process around the namespace, which ends it all."""
        self.cell: dict[str, object] = {}
        """Of the process inside, as ``forwarder.cell.plain`` writes it."""
        self.tap = -1
        """Descriptor of the TAP, once it has been made; the user of it closes it."""
        self.tun = -1
        """Descriptor of the TUN, the way out of the namespace; the user of it closes it."""
        self.sockets: dict[str, socket.socket] = {}
        """Listening sockets of the namespace, by name."""

    def start(self, settings: Mapping[str, object]) -> None:
        """Make the namespace and everything in it. Raises LocalError; nothing is left behind then."""
        for program, package in NEEDED.items():
            if shutil.which(program, path=PATH) is None:
                raise LocalError(f"{program} is missing; install {package}")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        in_user_namespace = os.geteuid() != 0
        try:
            self._child = subprocess.Popen(
                [
                    *(
                        "unshare",
                        *(USER if in_user_namespace else ()),
                        "--net",
                        *PIDS,
                        "--",
                    ),
                    *(sys.executable, *(["-I"] if sys.flags.isolated else [])),
                    *("-m", "gateway.inside", str(theirs.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env={**os.environ, "PATH": PATH},
                pass_fds=(theirs.fileno(),),
            )
            self.pidfd = os.pidfd_open(self._child.pid)
        except OSError as error:
            ours.close()
            raise LocalError(f"cannot start the gateway's namespace: {error.strerror}") from None
        finally:
            theirs.close()
        assert self._child.stderr is not None
        os.set_blocking(self._child.stderr.fileno(), False)
        self._channel = LoopChannel(ours)
        try:
            self._channel.send(
                Command("make", {"settings": dict(settings), "in_user_namespace": in_user_namespace})
            )
            self._await_made(time.monotonic() + START_S)
        except PeerError:
            self._child.wait()
            why = self._complaint(in_user_namespace)
            self.close()
            raise LocalError(why) from None
        except LocalError:
            self.close()
            raise
        self._channel.watch(self._loop, self._receive)
        self._loop.watch(self._child.stderr.fileno(), lambda _: self._listen())

    def make(self, kind: str, deliver: Deliver) -> None:
        """Ask for a new socket of the namespace; ``deliver`` gets it, now or later, or None."""
        if self._channel is None:
            deliver(None)
        else:
            self._stock.take(kind, deliver)

    def ask(self, command: Command) -> Future[Reply]:
        """Send a request to the process inside; ``answer`` is called in any case."""
        future: Future[Reply] = Future()
        self._answers.append(future.set_result)
        try:
            assert self._channel is not None
            self._channel.send(command)
        except ChannelClosedError:
            self._end("its channel has ended")  # which answers
        return future

    def close(self) -> None:
        """End the namespace and everything in it."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._child is not None:
            assert self._child.stderr is not None
            self._loop.unwatch(self._child.stderr.fileno())
            try:
                self._child.wait(1.0)
            except subprocess.TimeoutExpired:
                with suppress(PermissionError):  # in a cell; the supervisor ends it
                    self._child.kill()
                    self._child.wait()
            self._child.stderr.close()
            self._child = None
        close_all([each for each in (self.tap, self.tun, self.pidfd) if each >= 0])
        self.tap = self.tun = self.pidfd = -1
        for sock in self.sockets.values():
            sock.close()
        self.sockets.clear()
        self._stock.close()
        answers, self._answers = self._answers, []
        for answer in answers:
            answer(Reply(False, "the gateway's namespace has ended; see the log"))

    def _await_made(self, deadline: float) -> None:
        assert self._channel is not None
        made: list[Reply] = []
        self._answers.append(made.append)
        while not made:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([self._channel], [], [], wait)[0]:
                raise LocalError(f"the gateway's namespace was not ready after {START_S:g} s")
            self._receive_all()
        if not made[0].ok:
            raise LocalError(str(made[0].result))
        self.cell = cast(dict[str, object], made[0].result)

    def _receive(self) -> None:
        try:
            self._receive_all()
        except ChannelClosedError:
            self._end(self._failure or self._last_words() or "its process has ended")
        except PeerError as error:
            self._end(f"it sent a bad message: {error}")

    def _receive_all(self) -> None:
        while self._channel is not None and (received := self._channel.receive()) is not None:
            self._on_message(*received)

    def _on_message(self, message: Message, descriptors: tuple[int, ...]) -> None:
        match message:
            case Handover("tap"):
                self.tap = descriptors[0]
            case Handover("tun"):
                self.tun = descriptors[0]
            case Handover("sockets", {"kind": str(kind), "asked": int(asked)}):
                self._stock.came(kind, asked, descriptors)
            case Handover("listeners", {"names": list(names)}) if len(names) == len(descriptors):
                for name, descriptor in zip(cast(list[str], names), descriptors, strict=True):
                    self.sockets[name] = socket.socket(fileno=descriptor)
            case Command("log", {"level": str(level), "text": str(text)}):
                self._log(level, text)
            case Command("failed", {"why": str(why)}):
                self._failure = why
            case Command("refused", {"count": int(count), "last": int(last)}):
                self._refused(count, last)
            case Reply() if self._answers:
                self._answers.pop(0)(message)
            case _:
                close_all(descriptors)
                raise PeerError(f"an unexpected {type(message).__name__}")

    def _ask_for_sockets(self, kind: str, count: int) -> None:
        try:
            assert self._channel is not None
            self._channel.send(Command("sockets", {"kind": kind, "count": count}))
        except PeerError:
            self._end("its channel has ended")

    def _listen(self) -> None:
        """Read the standard error of the process; it is empty unless something is badly wrong."""
        assert self._child is not None
        assert self._child.stderr is not None
        with suppress(BlockingIOError):
            words = os.read(self._child.stderr.fileno(), 4096)
            self._words = (self._words + words)[-4096:]
            if not words:
                self._loop.unwatch(self._child.stderr.fileno())

    def _last_words(self) -> str:
        self._listen()
        lines = self._words.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _complaint(self, in_user_namespace: bool) -> str:
        """Return why the process ended before it had made anything."""
        why = self._last_words()
        if why.startswith("unshare:") and in_user_namespace:
            return (
                f"no user namespace can be made here ({why.removeprefix('unshare: ')}); allow them "
                "(sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 "
                "kernel.apparmor_restrict_unprivileged_userns=0, as far as there are), or run as root"
            )
        if why.startswith("unshare:"):
            why = why.removeprefix("unshare: ")
            return f"no network namespace can be made here ({why}); root needs CAP_SYS_ADMIN for that"
        return f"the gateway's namespace ended at once: {why or 'it said nothing'}"

    def _end(self, why: str) -> None:
        self.close()
        self._lost(why)


PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Find nft, which lies in sbin: not in an ordinary user's PATH."""
