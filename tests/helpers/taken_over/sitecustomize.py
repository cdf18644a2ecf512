"""Code of a test in a real worker, in its main thread: what it can do, a guest that has taken it over can.

Python imports a module of this name when it starts, if it finds one. It is on the path of a switch only where
a test has put it there (``taken_over.TakenOver``), and in no release. Before the worker is in its cell it
connects to the test; source text from the test is then run in the worker's loop, and the result sent
back.
"""

# ruff: noqa: F401 (what the test runs uses them: nothing can be imported in a cell)
import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
import types

where = os.environ.get("BULKHEAD_TAKEN_OVER", "")
program = sys.orig_argv[-2] if sys.orig_argv[-3:-2] == ["-m"] else ""
test = types.SimpleNamespace()
libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    """Make a system call, and raise what it says."""
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def meet(name):
    """Connect to the test, before the cell is closed."""
    test.link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    test.link.connect(where)
    test.link.send(name.encode())
    test.link.setblocking(False)


def obey(**process):
    """Run what the test has sent, if anything, and answer."""
    try:
        source = test.link.recv(1 << 16)
    except BlockingIOError:
        return
    if source:
        said = {}
        try:
            exec(source, {**globals(), **process, "said": said})
        except BaseException as error:
            said["failed"] = repr(error)
        test.link.send(json.dumps(said, default=str).encode())


if where and program == "workers":
    from forwarder import messages, names, wire
    from workers.birth import Birthright
    from workers.worker import Worker

    birth, begin, work = Birthright.__init__, Worker.__init__, Worker._work

    def be_born(self, *arguments):
        meet(str(os.getpid()))
        birth(self, *arguments)

    def start(self, *arguments):
        begin(self, *arguments)
        self._engine.watch(test.link.fileno())

    def _work(self, now):
        obey(worker=self)
        work(self, now)

    Birthright.__init__, Worker.__init__, Worker._work = be_born, start, _work

if where and program == "gateway":
    from forwarder import messages, names, wire
    from gateway.gateway import Gateway
    from gateway.inside.process import Inside

    def meet_at_birth(process, name):
        """Let a process, or one that it has forked, meet the test when it makes its main object."""
        begin = process.__init__

        def be_born(self, *arguments):
            begin(self, *arguments)
            meet(name)
            test.pair = socket.socketpair()
            descriptors = types.SimpleNamespace(vm=test.pair[0].fileno())
            stand_in = types.SimpleNamespace(_fds=descriptors, _channel=self._channel)
            self._loop.watch(test.link.fileno(), lambda _: obey(worker=stand_in, process=self))

        process.__init__ = be_born

    meet_at_birth(Gateway, "gateway")
    meet_at_birth(Inside, "gateway.inside")
