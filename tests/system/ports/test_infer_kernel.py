"""The oracle of inference: the inferred header equals the header that the kernel wrote.

Two kernels talk TCP and UDP over IPv4 and IPv6. Between their TAPs the test carries the frames with their
headers, and looks at each as libkrun would have sent it: without. (What a frame does not show is that the
ends of its connection have agreed upon smaller segments than their MTU allows.)
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from forwarder import _core
from tests.helpers.guests import requirements
from tests.helpers.guests.netns import TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, VIRTIO_HEADER, Namespace

pytestmark = pytest.mark.guest

MTU = 1500
KINDS = {"as krunkit": TUN_F_CSUM | TUN_F_TSO4, "with TSO6": TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6}


class Wire:
    """Carries frames between two TAPs and compares, in a thread."""

    def __init__(self, left: int, right: int) -> None:
        self.frames = self.unfinished = self.cut = 0
        self.different: list[tuple[bytes, bytes]] = []
        self._ways = {left: right, right: left}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        while not self._over.is_set():
            for tap in select.select(list(self._ways), [], [], 0.05)[0]:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        whole = os.read(tap, 1 << 17)
                        self._compare(whole)
                        with contextlib.suppress(OSError):
                            os.write(self._ways[tap], whole)

    def _compare(self, whole: bytes) -> None:
        was, inferred = whole[:10], _core.infer_offload(whole[VIRTIO_HEADER:], MTU)
        self.frames += 1
        self.unfinished += was[0] & 1
        self.cut += was[1] != 0
        # The length of the headers (bytes 2 and 3) is a hint, and Linux's is that of its first buffer.
        if (was[:2], was[4:] if was[0] else b"") != (inferred[:2], inferred[4:] if inferred[0] else b""):
            self.different.append((was, whole[VIRTIO_HEADER:]))

    def close(self) -> None:
        self._over.set()
        self._thread.join()


class Ends(NamedTuple):
    wire: Wire
    left: Namespace
    right: Namespace


@pytest.fixture(params=KINDS)
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    requirements.require(requirements.NAMESPACE)
    with contextlib.ExitStack() as stack:
        left, right = (stack.enter_context(contextlib.closing(Namespace(name))) for name in ("left", "right"))
        taps = [
            space.open_tap(f"52:54:00:00:14:0{number}", mtu=MTU, offloads=KINDS[request.param])
            for number, space in enumerate((left, right), 1)
        ]
        wire = stack.enter_context(contextlib.closing(Wire(*taps)))
        for number, space in enumerate((left, right), 1):
            space.address(f"10.14.0.{number}/24")
            space.run(f"ip addr add fd14::{number}/64 dev {space.interface} nodad")
        yield Ends(wire, left, right)


@pytest.mark.parametrize("address", ["10.14.0.2", "fd14::2"])
def test_the_inferred_header_is_the_kernels_header(ends: Ends, address: str) -> None:
    ends.right.serve_iperf()
    for words in ("-n 20M", "-n 20M -R", "-n 4M -P 4 --bidir", "-u -b 50M -n 4M -l 1400"):
        ends.left.run_iperf(address, words)
    wire = ends.wire
    assert wire.different == []
    assert wire.unfinished > 1000
