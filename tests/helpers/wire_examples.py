"""An example of every message of the control plane."""

from forwarder import wire
from forwarder.messages import OWNER
from forwarder.names import (
    Cell,
    Policy,
    PortRecord,
)
from forwarder.vhost_session import Region, VhostSession

POLICY = Policy((b"\x52\x54\0\0\0\x01",), False, 1, 2, 3, 100_000, 4, True, ("gateway",))
RECORD = PortRecord(1, 7, 3, "qemu-1", "qemu", POLICY)
CELL = Cell(("user", "seccomp"), 7)
EXAMPLES: list[wire.Message] = [
    wire.Beat(5, 0, 1000, 1000),
    wire.Update(5, 1, (wire.Change("join", RECORD),), ()),
    wire.Hello(),
    wire.Heartbeat(0, 0, 12, True, False, 0, -1),
    wire.Note("no room to pin"),
    wire.Goodbye("the VM hung up"),
    wire.SnapshotRequest(),
    wire.SnapshotPart(5, 2, False, (RECORD, RECORD._replace(port=2, name="bess-2", transport="bess"))),
    wire.Drain(),
    wire.Fork(),
    wire.Forked(0, "cannot fork: Resource temporarily unavailable"),
    wire.WantCapture(("web", "3"), b"12345678", 65535),
    wire.CaptureRing(3, 5, "web", "qemu"),
    wire.Capture(7, b"", 128),
    wire.CaptureOver(7),
    wire.Ready(1, CELL),
    wire.Claim(1, CELL, RECORD),
    wire.RingSealed(2, 9),
    wire.RingOpen(2, 9),
    wire.RingIdle(2, 9),
    wire.RingOver(2, 9),
    wire.Assign(RECORD, 4, 5, 1000, 1000, True),
    wire.KeepSession(3, VhostSession(1 << 56, 1 << 15, (Region(0, 1 << 20, (1 << 64) - 4096, 0),))),
    wire.WantFloods(((1, 7), (2, 8))),
    wire.Floods(()),
    wire.Owners(OWNER.pack(bytes(16), 1) + OWNER.pack(b"\xfd" + bytes(15), 2)),
    wire.Guarded("router", bytes(6), bytes(16)),
    wire.WantRing(2, 8),
    wire.RingTx(2, 8),
    wire.RingRx(2, 8),
    wire.FloodTx(),
    wire.FloodMoved(),
    wire.FloodRx(2, 8),
    wire.Handover("tap", {"name": "gw0"}, 1),
    wire.Command("stats", {"by_source": True, "ports": [1, 2]}),
    wire.Reply(
        True, {"ports": [{"port": 1, "rx": {"frames": 1}, "rate": 0.5, "mac": b"\x01", "none": None}]}
    ),
]
