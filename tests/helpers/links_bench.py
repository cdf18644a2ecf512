"""The links of one worker, with an engine that only notes its calls."""

import os

from forwarder.messages import Change, Update
from forwarder.names import Policy, PortRecord
from workers.links import Links

MAC = bytes.fromhex("020000000007")
OTHER_MAC = bytes.fromhex("020000000008")
NOW, START = {"from_start": False}, {"from_start": True}


def port(number, epoch=10, *, born=None, policy=Policy()):  # noqa: B008 (a NamedTuple is immutable)
    return PortRecord(number, epoch, born or epoch, f"vm-{number}", "qemu", policy)


def update(sequence, change, record):
    """One change, with the flood ring of its port."""
    return Update(7, sequence, (Change(change, record),), (record.incarnation,))


class FakeEngine:
    """Notes what it is told; ``refuse`` makes attaching fail as a stale epoch does, ``crowded`` pinning."""

    def __init__(self):
        self.calls = []
        self.refuse = False
        self.crowded = set()
        self.answers = {"idle_rings": [], "detach_tx": True}

    def __getattr__(self, name):
        def call(*arguments, **limits):
            if name.startswith("attach") and self.refuse:
                raise OSError("stale")
            if name == "pin" and self.crowded.intersection(arguments[1]):
                raise ValueError("cannot be pinned")
            self.calls.append((name, *arguments, *([limits] if limits else [])))
            return self.answers.get(name)

        return call

    def took(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


class Bench:
    def __init__(self, own=None, older=0):
        self.engine = FakeEngine()
        self.sent = []
        self.links = Links(self.engine, own or port(1), self.sent.append, older)

    def descriptors(self, count):
        made = []
        for _ in range(count):
            read, write = os.pipe()
            os.close(write)
            made.append(read)
        return tuple(made)
