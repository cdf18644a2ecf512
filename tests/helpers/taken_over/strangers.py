"""Another process of the switch's user, which knocks at its sockets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def strangers(path: Path, kind: int, count: int) -> int:
    """Connect to a socket again and again as another process of the same user, and say what no one says.

    With descriptors of every kind: files, directories, pipes, eventfds, epoll sets, memfds, sockets, a pidfd,
    and the connection itself.
    """
    code = (
        "import os, random, socket, struct, sys\n"
        "path, kind, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
        "chance, sent = random.Random(count), 0\n"
        "import select\n"
        "pair = socket.socketpair()\n"
        "epoll = select.epoll()\n"
        "kinds = [os.open('/dev/null', 0), os.open('/', 0), *os.pipe(), os.eventfd(0), epoll.fileno(),\n"
        "         os.memfd_create('x'), pair[0].fileno(), os.pidfd_open(os.getpid())]\n"
        "while sent < count:\n"
        "    with socket.socket(socket.AF_UNIX, kind) as sock:\n"
        "        sock.settimeout(0.05)\n"
        "        try:\n"
        "            sock.connect(path)\n"
        "            for _ in range(chance.randrange(1, 50)):\n"
        "                sent += 1\n"
        "                these = [*kinds, sock.fileno()]\n"
        "                fds = chance.choices(these, k=chance.choice((0, 0, 1, 2, 7, 100)))\n"
        "                rights = [(1, 1, struct.pack(f'{len(fds)}i', *fds))] if fds else []\n"
        "                sock.sendmsg([chance.randbytes(chance.randrange(1, 3000))], rights)\n"
        "        except OSError:\n"
        "            sent += 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(kind), str(count)], check=True, timeout=120
    )
    return done.returncode
