"""A VM is stalled when frames wait for it and none has moved for STALL_S."""

from workers.stall import STALL_S, StallWatch


def test_an_idle_vm_never_stalls():
    watch = StallWatch(now=0.0)
    assert not watch.observe(written=0, queued=0, now=1000.0)
    assert not watch.stalled
    assert watch.deadline(queued=0) == float("inf")


def test_a_slow_vm_does_not_stall():
    watch = StallWatch(now=0.0)
    for second in range(100):
        watch.observe(written=second, queued=1 << 20, now=float(second))
        assert not watch.stalled


def test_a_stall_is_reported_once_and_ends_when_a_byte_moves():
    watch = StallWatch(now=0.0)
    watch.observe(written=5, queued=100, now=1.0)
    assert watch.deadline(queued=100) == 1.0 + STALL_S
    assert not watch.observe(written=5, queued=100, now=1.0 + STALL_S - 0.01)
    assert watch.observe(written=5, queued=100, now=1.0 + STALL_S)
    assert watch.stalled
    assert not watch.observe(written=5, queued=200, now=60.0)
    assert watch.stalled
    assert watch.deadline(queued=200) == float("inf")
    assert watch.observe(written=6, queued=200, now=61.0)
    assert not watch.stalled


def test_frames_that_begin_to_wait_after_a_quiet_hour_are_given_their_time():
    watch = StallWatch(now=0.0)
    watch.observe(written=5, queued=0, now=3600.0)
    assert not watch.observe(written=5, queued=100, now=3600.1)
    assert not watch.stalled
