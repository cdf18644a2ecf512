"""The template: a process that has imported all modules of a worker, and forks a worker on request.

Theory of operation. An interpreter that starts and imports takes a tenth of a second and 9 MiB; a fork of
one that has done so takes a millisecond, and shares its pages until it writes to them. The supervisor starts
one template and asks it for each worker (``Fork``, with one end of a channel); there is no other way to start
one.

A template has one thread, no ZeroMQ context, no port and no secret of a port. Besides the interpreter it has
only its channel, which the child closes first. The worker is a child of the *supervisor* (``fork_sibling``):
the end of a template does not affect workers, and the supervisor reaps its workers itself. The worker gets
the end of its channel as standard input, and a session of its own.

A template belongs to its supervisor: it ends with it, even if it is stopped (``end_with_parent``, and the end
of its channel). A supervisor of another version has a template of its own version.

The garbage collector is off here, and all objects are frozen, so that no collection in a worker writes to
shared pages.

Example: the supervisor (pid 100) starts the template (101) and sends two Forks. 101 answers Forked(102) and
Forked(103); 102 and 103 are children of 100, enter their cells and say Ready over their own channels.
"""

import gc
import os
import select
import signal
import socket
import sys

from forwarder import _core
from forwarder.channel import Channel, ChannelClosedError
from forwarder.errors import PeerError, shortage
from forwarder.messages import MAX_TEXT, Fork, Forked
from forwarder.process.name import rename
from workers.spare import wait_for_port
from workers.worker import Worker

NAME = "worker-template"
"""The name in top(1). The command line is that of a worker."""


class Template:
    """The template's side of its channel to the supervisor."""

    def __init__(self, runtime_dir: str) -> None:
        """Take standard input for the channel."""
        self._runtime_dir = runtime_dir
        self._channel = Channel(socket.socket(fileno=os.dup(0)))
        self._comm = rename(NAME)

    def serve(self) -> int:
        """Fork workers until the supervisor ends. Returns the exit status of the template."""
        poll = select.poll()
        try:
            while True:
                events = select.POLLIN | (select.POLLOUT if self._channel.wants_write else 0)
                poll.register(self._channel.fileno(), events)
                poll.poll()
                self._channel.flush()
                while (received := self._channel.receive()) is not None:
                    message, descriptors = received
                    if not isinstance(message, Fork):
                        raise PeerError(f"a {type(message).__name__} is not for a template")
                    self._fork(*descriptors)
        except ChannelClosedError:
            return 0

    def _fork(self, end: int) -> None:
        """Fork a worker with this end of a channel, and answer the request."""
        try:
            pid = _core.fork_sibling()
        except OSError as error:
            answer = Forked(0, f"cannot fork: {shortage(error)}"[:MAX_TEXT])
        else:
            answer = Forked(pid, "")
        if answer.pid == 0 and not answer.why:
            self._become_worker(end)
        os.close(end)
        self._channel.send(answer)

    def _become_worker(self, end: int) -> None:
        """Be a worker from here to the end of the process."""
        status = 1
        try:
            self._channel.close()
            os.dup2(end, 0)
            os.close(end)
            os.setsid()
            rename(self._comm)
            gc.enable()
            status = serve_port(self._runtime_dir)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)  # the end of an interpreter would write to shared pages


def serve_port(runtime_dir: str) -> int:
    """Wait for a port, serve it, end. Returns the exit status."""
    try:
        assignment = wait_for_port(runtime_dir)
    except OSError as error:
        print(f"a worker cannot begin in {runtime_dir}: {shortage(error)}", file=sys.stderr)  # noqa: T201
        return 1
    return 0 if assignment is None else Worker(assignment).serve()


def run(runtime_dir: str) -> int:
    """Be the template of the directory's supervisor. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _core.end_with_parent()
    gc.disable()
    gc.collect()
    gc.freeze()
    try:
        return Template(runtime_dir).serve()
    except PeerError as error:
        print(f"the template of the workers ends: {error}", file=sys.stderr)  # noqa: T201
        return 1
