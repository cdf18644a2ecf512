"""What a process costs, by descriptors that it has brought itself."""

from __future__ import annotations

import os
import time

import pytest

from forwarder.names import Identity
from supervisor.base.proc import start_time
from supervisor.console.process_sampler import ProcessSampler

SELF = Identity(os.getpid(), start_time(os.getpid()))


def memory(data: bytes) -> int:
    made = os.memfd_create("x")
    os.write(made, data)
    return made


def test_the_memory_of_a_process_is_read_from_its_descriptors() -> None:
    sampler = ProcessSampler()
    sampler.meet(
        SELF, (os.open("/proc/self/smaps_rollup", os.O_RDONLY), os.open("/proc/self/fd", os.O_RDONLY))
    )
    usage = sampler.sample([SELF], time.monotonic())[SELF]
    assert usage.pss_bytes
    assert usage.fds
    sampler.part(SELF)


@pytest.mark.parametrize(
    "said", [b"", b"Pss:", b"Pss: many kB\n", b"Pss: " + b"9" * 40 + b" kB\n", b"\xff" * 5000]
)
def test_what_is_no_figure_is_none_and_hides_no_other_process(said: bytes) -> None:
    sampler = ProcessSampler()
    sampler.meet(SELF, (memory(said), memory(b"")))
    parent = Identity(os.getppid(), start_time(os.getppid()))
    found = sampler.sample([SELF, parent], time.monotonic())
    assert found.get(SELF) is None or found[SELF].pss_bytes is None
    assert parent in found
    sampler.part(SELF)
