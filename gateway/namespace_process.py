"""The process in the gateway's namespace, seen from outside: its start, what it says at its end.

Theory of operation
-------------------
The gateway forks it when it has imported what that process needs, and nothing else: the two share these
pages, 5 MiB of them, and the process can make the namespace while the gateway imports its other modules. At
that time the gateway has one thread, its channel to the supervisor, which the child closes first, and no
secret.

An ordinary user gets a user namespace around the network namespace. It has every right inside and none
outside. The creator of a user namespace has all rights in it from outside, too, so the host side may set
options on the sockets that it receives.

A PID namespace surrounds both: the kernel kills every process in it when the namespace's process ends,
however it ends. That one ends with the gateway, even if it is stopped (``end_with_parent``).

Example: an ordinary user's gateway (pid 100) forks 101, which is 1 in its own PID namespace and root in its
own user namespace. 101 closes descriptor 4 of the gateway and serves its channel; when 100 ends, 101 ends.
"""

import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

from forwarder import _core
from forwarder.channel import close_all
from forwarder.errors import shortage
from forwarder.process.name import rename, rewrite_command_line
from gateway.inside import process as inside

NEEDED = {"nft": "nftables", "ip": "iproute2"}
"""The programs that are needed, and their Debian packages."""

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Find nft, which lies in sbin: not in an ordinary user's PATH."""

NAME = "gateway.inside"
"""Its name in top(1), and the module on its command line."""

END_S = 1.0
NO_USER_NAMESPACE = (
    "no user namespace can be made here ({}); allow them "
    "(sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 "
    "kernel.apparmor_restrict_unprivileged_userns=0, as far as there are), or run as root"
)
NO_NETWORK_NAMESPACE = "no network namespace can be made here ({}); root needs CAP_SYS_ADMIN for that"


class NamespaceProcess:
    """One process, from its start to its end."""

    def __init__(self, *not_inside: int) -> None:
        """Start it, without these descriptors; ``failure`` says why that is impossible."""
        self.failure = ""
        self.in_user_namespace = os.geteuid() != 0
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """Our end of its channel; the user of it closes it."""
        self.pidfd = -1
        """Of the process, which ends it all; the user of it closes it."""
        self._pid = 0
        self._stderr = -1
        self._words = b""
        try:
            self._start(theirs, not_inside)
        except OSError as error:
            self.failure = f"cannot start the gateway's namespace: {shortage(error)}"
        finally:
            theirs.close()

    def _start(self, channel: socket.socket, not_inside: tuple[int, ...]) -> None:
        for program, package in NEEDED.items():
            # shutil.which would take a third of a MiB that both processes keep.
            if not any(os.access(os.path.join(each, program), os.X_OK) for each in PATH.split(os.pathsep)):
                self.failure = f"{program} is missing; install {package}"
                return
        self._stderr, stderr = os.pipe()
        os.set_blocking(self._stderr, False)
        user, group = os.geteuid(), os.getegid()
        gc.freeze()  # no collection writes to pages that both have
        try:
            self._pid = _core.fork_into_namespaces(self.in_user_namespace)
        except OSError as error:
            why = NO_USER_NAMESPACE if self.in_user_namespace else NO_NETWORK_NAMESPACE
            self.failure = why.format(error.strerror)
        else:
            if self._pid == 0:
                os.dup2(stderr, 2)
                self.channel.close()
                close_all([self._stderr, stderr, *not_inside])
                _be_inside(channel, (user, group) if self.in_user_namespace else None)
            self.pidfd = os.pidfd_open(self._pid)
        finally:
            os.close(stderr)

    def fileno(self) -> int:
        """Return the descriptor of its standard error; -1: it has none."""
        return self._stderr

    def listen(self) -> bool:
        """Read its standard error, empty unless something is badly wrong; return whether it is open."""
        with suppress(BlockingIOError):
            words = os.read(self._stderr, 4096)
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
        self._reap()
        return self.last_words() or "the gateway's namespace ended at once, and said nothing"

    def close(self) -> None:
        """Wait for its end, for a second, then kill it; its channel has been closed."""
        if self._pid and not self._ends():
            with suppress(PermissionError):  # in a cell; the supervisor ends it
                os.kill(self._pid, signal.SIGKILL)
                self._reap()
        else:
            self._reap()
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1

    def _ends(self) -> bool:
        """Return whether it ends within END_S."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(END_S * 1000))

    def _reap(self) -> None:
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0


def _be_inside(channel: socket.socket, user: tuple[int, int] | None) -> NoReturn:
    """Be the process in the namespace, to its end; ``user``, and group: to be root in a user namespace."""
    status = 1
    try:
        _core.end_with_parent()
        rename(NAME)
        rewrite_command_line("python", "-m", NAME)
        os.environ["PATH"] = PATH
        if user is None or _is_root(*user):
            inside.serve(channel)
            status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)  # the end of an interpreter would write to shared pages


def _is_root(user: int, group: int) -> bool:
    """Become root of the new user namespace (user_namespaces(7)); otherwise say why not."""
    try:
        for name, words in ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1"):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(words)
    except OSError as error:
        sys.stderr.write(NO_USER_NAMESPACE.format(error.strerror) + "\n")
        return False
    return True
