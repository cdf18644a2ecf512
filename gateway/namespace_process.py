"""The process in the gateway's namespace, seen from outside: its start, what it says at its end.

It starts before the gateway has imported anything else (``gateway.__main__``): its own imports take as long,
and its channel keeps what it is asked meanwhile. So this file imports little.

An ordinary user gets a user namespace around the network namespace. It has every right inside and none
outside. The creator of a user namespace has all rights in it from outside, too, so the host side may set
options on the sockets that it receives.

A PID namespace surrounds both: the kernel kills every process in it when the namespace's process ends,
however it ends.

``unshare`` (util-linux, on every Debian) does what Python can do from 3.12 on only.
"""

import os
import socket
import subprocess
import sys
from contextlib import suppress

NEEDED = {"unshare": "util-linux", "nft": "nftables", "ip": "iproute2"}
"""The programs that are needed, and their Debian packages."""

USER = ("--user", "--map-root-user")
PIDS = ("--pid", "--fork", "--kill-child")

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Find nft, which lies in sbin: not in an ordinary user's PATH."""


class NamespaceProcess:
    """One process, from its start to its end."""

    def __init__(self) -> None:
        """Start it; ``failure`` says why that is impossible."""
        self.failure = ""
        self.in_user_namespace = os.geteuid() != 0
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """Our end of its channel; the user of it closes it."""
        self.pidfd = -1
        """Of the process around the namespace, which ends it all; the user of it closes it."""
        self._child: subprocess.Popen[bytes] | None = None
        self._words = b""
        try:
            self._start(theirs.fileno())
        except OSError as error:
            self.failure = f"cannot start the gateway's namespace: {error.strerror}"
        finally:
            theirs.close()

    def _start(self, channel: int) -> None:
        for program, package in NEEDED.items():
            if not any(os.access(os.path.join(each, program), os.X_OK) for each in PATH.split(os.pathsep)):
                self.failure = f"{program} is missing; install {package}"
                return
        user = USER if self.in_user_namespace else ()
        isolated = ("-I",) if sys.flags.isolated else ()
        self._child = subprocess.Popen(
            [
                *("unshare", *user, "--net", *PIDS, "--"),
                *(sys.executable, *isolated, "-m", "gateway.inside", str(channel)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env={**os.environ, "PATH": PATH},
            pass_fds=(channel,),
        )
        assert self._child.stderr is not None
        os.set_blocking(self._child.stderr.fileno(), False)
        self.pidfd = os.pidfd_open(self._child.pid)

    def fileno(self) -> int:
        """Return the descriptor of its standard error; -1: it has none."""
        return -1 if self._child is None or self._child.stderr is None else self._child.stderr.fileno()

    def listen(self) -> bool:
        """Read its standard error, empty unless something is badly wrong; return whether it is open."""
        with suppress(BlockingIOError):
            words = os.read(self.fileno(), 4096)
            self._words = (self._words + words)[-4096:]
            return bool(words)
        return True

    def last_words(self) -> str:
        """Return the last line of its standard error."""
        self.listen()
        lines = self._words.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def complaint(self) -> str:
        """Wait for its end, and return why it ended before it had made anything."""
        assert self._child is not None
        self._child.wait()
        why = self.last_words()
        if why.startswith("unshare:") and self.in_user_namespace:
            return (
                f"no user namespace can be made here ({why.removeprefix('unshare: ')}); allow them "
                "(sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 "
                "kernel.apparmor_restrict_unprivileged_userns=0, as far as there are), or run as root"
            )
        if why.startswith("unshare:"):
            why = why.removeprefix("unshare: ")
            return f"no network namespace can be made here ({why}); root needs CAP_SYS_ADMIN for that"
        return f"the gateway's namespace ended at once: {why or 'it said nothing'}"

    def close(self) -> None:
        """Wait for its end, for a second, then kill it; its channel has been closed."""
        if self._child is None:
            return
        try:
            self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            with suppress(PermissionError):  # in a cell; the supervisor ends it
                self._child.kill()
                self._child.wait()
        assert self._child.stderr is not None
        self._child.stderr.close()
        self._child = None
