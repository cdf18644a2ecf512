"""What each worker has to claim after its supervisor's death: a file for each, for the next supervisor.

Theory of operation. A worker that outlives its supervisor brings its port back with a claim (``takeover``). A
guest may have taken that worker over: it could claim another VM's number, name and pinned addresses, or its
own port without isolation and limits, or a cell that it is not in. So the supervisor writes down what it
knows of a worker, in ``PID.port``, when the worker has got its port and at each change of the settings. The
next supervisor believes the file. A worker in its cell reaches no file.

Without a file (the disk was full, a cleaner has removed it) the claim is believed, as far as the files of
other workers leave room for it. A file is written in place: if a kill damages it, that is the same.

Example: worker 4711 has port 3, which ``set`` has isolated. It claims port 3 without isolation: it is taken
over, isolated. It claims port 2: it is ended.
"""

import os
from collections.abc import Iterable, Mapping

from forwarder.errors import PeerError
from forwarder.messages import Claim
from forwarder.names import Identity, PortRecord
from forwarder.rendezvous import PORT, worker_path
from forwarder.wire import decode, encode
from supervisor.base.logs import Throttle
from supervisor.ports.settings import pin_clash

MOST_BYTES = 4096
"""More than the longest claim, whose record has 1.5 kB."""


class ExpectedClaims:
    """The files of one runtime directory."""

    def __init__(self, runtime_dir: str) -> None:
        self._runtime_dir = runtime_dir
        self._known: dict[int, Claim] = {}
        self._throttle = Throttle()

    def get(self, pid: int) -> Claim | None:
        """Return what was put last of a worker."""
        return self._known.get(pid)

    def put(self, pid: int, claim: Claim) -> None:
        """Write what a worker has to claim from now on."""
        if self._known.get(pid) == claim:
            return
        self._known[pid] = claim
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(worker_path(self._runtime_dir, pid, PORT), flags, 0o600), "wb", 0) as file:
                file.write(encode(claim))
        except OSError as error:
            what = f"the next supervisor will have to believe worker {pid}: {error.strerror}"
            self._throttle.warning("claim", what)

    def renew(self, record: PortRecord) -> None:
        """Write the present settings of a port's worker, whether its channel is there or not."""
        for pid, known in list(self._known.items()):
            if known.record.incarnation == record.incarnation:
                self.put(pid, known._replace(record=record))

    def forget(self, pid: int) -> None:
        """Forget a worker that has ended; its file goes with its sockets (``processes``)."""
        self._known.pop(pid, None)


def read(runtime_dir: str, identities: Iterable[Identity]) -> dict[Identity, Claim]:
    """Return what is written of these workers."""
    found = {}
    for identity in identities:
        try:
            path = worker_path(runtime_dir, identity.pid, PORT)
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", 0) as file:
                claim = decode(file.read(MOST_BYTES))
        except (OSError, PeerError):
            continue
        if isinstance(claim, Claim):
            found[identity] = claim
    return found


def believed(claim: Claim, identity: Identity, expected: Mapping[Identity, Claim]) -> Claim:
    """Return what is true of a claim. Raises PeerError if it is for a port that the worker never had."""
    record, known = claim.record, expected.get(identity)
    if known is not None:
        if known.record.incarnation != record.incarnation:
            raise PeerError(f"its worker {identity.pid} had port {known.record.port}")
        return known
    others = [each.record for each in expected.values()]
    if any(record.port == each.port or record.name == each.name for each in others):
        raise PeerError("another worker had this port")
    if clash := pin_clash(record.policy.pinned, others):
        raise PeerError(clash)
    return claim
