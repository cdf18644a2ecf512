"""What the core does when the kernel says no: errnos, short writes and delays, injected below its calls."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.core.mini_switch import KINDS

SOURCE = Path(__file__).parents[1] / "helpers" / "preload" / "faults.c"
FRAMES = 300
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    built = tmp_path_factory.mktemp("preload") / "faults.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-D_GNU_SOURCE"]
    subprocess.run(["cc", *flags, "-o", built, SOURCE, "-ldl"], check=True)
    return built


def run(library, module, *arguments, seed=1, again=0, nobufs=0, short=0, delay=0, once=0):
    # Before a sanitizer's library, which would otherwise be the caller that the faults see, not the core.
    preload = f"{library} {os.environ.get('LD_PRELOAD', '')}".strip()
    sanitizer = f"{os.environ.get('ASAN_OPTIONS', '')}:verify_asan_link_order=0"
    faults = f"{seed},{again},{nobufs},{short},{delay},{once}"
    done = subprocess.run(
        [sys.executable, "-m", f"tests.helpers.preload.{module}", *arguments],
        cwd=SOURCE.parents[3],
        env={**os.environ, "LD_PRELOAD": preload, "ASAN_OPTIONS": sanitizer, "FAULTS": faults},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def traffic(library, kind, frames, *, seed=1, **faults):
    return run(library, "traffic", kind, str(frames), str(seed), seed=seed, **faults)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "faults",
    [
        {"short": 60},
        {"again": 30},
        {"nobufs": 30},
        {"again": 15, "nobufs": 15, "short": 40, "delay": 10},
    ],
    ids="-".join,
)
def test_every_frame_arrives_whole_and_in_order(library, kind, faults):
    result = traffic(library, kind, FRAMES, seed=7, **faults)
    assert result["arrived"] == 2 * FRAMES, result
    assert result["whole"], result
    assert result["lost"] == 0
    counters = result["counters"]
    assert counters["tx_frames"] == 2 * FRAMES
    assert (counters["eagain"] > 0) == ("again" in faults) or "short" in faults
    assert (counters["enobufs"] > 0) == ("nobufs" in faults)


@pytest.mark.parametrize("kind", ["stream", "stream16", "dgram"])
def test_without_buffers_a_write_is_retried_ever_more_slowly_and_never_in_a_spin(library, kind):
    """In one second: 50 us, 100 us ... 6.4 ms, then every 10 ms, is about 105 tries."""
    result = traffic(library, kind, 0, nobufs=100)
    assert result["link_error"] == ""
    assert 20 <= result["counters"]["enobufs"] <= 130
    assert result["counters"]["tx_frames"] == 0
    if not SANITIZED:
        assert result["cpu_s"] < 0.5


@pytest.mark.parametrize("kind", ["stream", "stream16", "dgram"])
def test_one_shortage_of_buffers_costs_nothing_but_time(library, kind):
    result = traffic(library, kind, 0, once=errno.ENOBUFS)
    assert result["link_error"] == ""
    assert result["counters"]["enobufs"] == 1
    assert result["counters"]["tx_frames"] == 1


@pytest.mark.parametrize("kind", ["stream", "stream16", "dgram"])
def test_a_worker_that_sleeps_wakes_for_its_retry(library, kind):
    """It does not wait for its pulse, which is a second away or more."""
    result = run(library, "retry", kind, once=errno.ENOBUFS)
    assert result["arrived"]
    assert result["counters"]["enobufs"] == 1


@pytest.mark.parametrize("kind", ["seqpacket", "dgram"])
def test_a_frame_that_the_socket_refuses_is_dropped_alone(library, kind):
    result = traffic(library, kind, 0, once=errno.EMSGSIZE)
    assert result["link_error"] == ""
    assert result["counters"]["refused"] == 1
    assert result["counters"]["tx_frames"] == 0


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("stream", errno.EPIPE),
        ("stream16", errno.EPIPE),
        ("stream", errno.ECONNRESET),
        ("seqpacket", errno.EPIPE),
        ("dgram", errno.ECONNREFUSED),
    ],
)
def test_a_broken_link_is_down_and_says_why(library, kind, error):
    result = traffic(library, kind, 0, once=error)
    assert result["link_error"] == f"writing to the VM: {os.strerror(error)}"
