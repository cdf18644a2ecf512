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
if where and sys.orig_argv[-3:-1] == ["-m", "workers"]:
    from forwarder import messages, names, wire
    from workers.birth import Birthright
    from workers.worker import Worker

    birth, begin, work = Birthright.__init__, Worker.__init__, Worker._work
    libc = ctypes.CDLL(None, use_errno=True)
    test = types.SimpleNamespace()

    def be_born(self, *arguments):
        """Connect to the test, before the cell is closed."""
        test.link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        test.link.connect(where)
        test.link.send(str(os.getpid()).encode())
        test.link.setblocking(False)
        birth(self, *arguments)

    def call(number, *arguments):
        """Make a system call, and raise what it says."""
        result = libc.syscall(number, *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def start(self, *arguments):
        begin(self, *arguments)
        self._engine.watch(test.link.fileno())

    def _work(self, now):
        try:
            source = test.link.recv(1 << 16)
        except BlockingIOError:
            source = b""
        if source:
            said = {}
            try:
                exec(source, {**globals(), "worker": self, "said": said})
            except BaseException as error:
                said["failed"] = repr(error)
            test.link.send(json.dumps(said, default=str).encode())
        work(self, now)

    Birthright.__init__, Worker.__init__, Worker._work = be_born, start, _work
