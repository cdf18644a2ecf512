"""What real clients need of the machine, and what it means that something is missing.

On a developer's machine a missing package or privilege skips the test and says which one. Where
``CI=true`` is set it fails: a test that silently stopped running is worse than none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from ctypes.util import find_library
from pathlib import Path

import pytest

from tests.helpers.guests import kernel
from tests.helpers.guests.ordinary import NOBODY, as_user


def _can_use_tun() -> bool:
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


def _can_make_user_namespaces() -> bool:
    command = as_user(NOBODY, ["unshare", "--user", "--map-root-user", "--net", "true"])
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _has(*programs: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(program) for program in programs)


SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

# what it is called, how it is recognised, what to do about it
CHECKS: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "run as root"),
    "tun": (_can_use_tun, "load the tun module, or give the container /dev/net/tun"),
    "ip": (_has("ip"), "install iproute2"),
    "curl": (_has("curl"), "install curl"),
    "dig": (_has("dig"), "install bind9-dnsutils"),
    "iperf3": (_has("iperf3"), "install iperf3"),
    "busybox": (Path("/bin/busybox").exists, "install busybox-static"),
    "qemu": (_has("qemu-system-x86_64"), "install qemu-system-x86"),
    "qemu-img": (_has("qemu-img"), "install qemu-utils"),
    "uml": (_has("linux.uml"), "install user-mode-linux"),
    "dpdk": (_has("dpdk-testpmd"), "install dpdk-dev"),
    "tshark": (_has("tshark", "capinfos"), "install tshark and wireshark-common"),
    "libpcap": (lambda: find_library("pcap") is not None, "install libpcap0.8"),
    "promtool": (_has("promtool", "prometheus"), "install prometheus"),
    "chromium": (_has("chromium", "chromedriver"), "install chromium and chromium-driver"),
    "spin": (_has("spin"), "install spin"),
    "clang": (_has("clang"), "install clang and libclang-rt-dev"),
    "ssh": (
        lambda: all(shutil.which(name, path=f"{SBIN}:/usr/bin") for name in ("ssh", "ssh-keygen", "sshd")),
        "install openssh-client and openssh-server",
    ),
    "user namespaces": (_can_make_user_namespaces, "allow user namespaces to ordinary users"),
    "nft": (lambda: shutil.which("nft", path=SBIN) is not None, "install nftables"),
    "kernel": (lambda: kernel.cloud_kernel() is not None, "install linux-image-cloud-amd64"),
}
GATEWAY = ("nft",)
NAMESPACE = ("root", "tun", "ip", "busybox", "iperf3")
QEMU = ("qemu", "kernel", "busybox", "iperf3")
UML = ("uml", "busybox", "iperf3")


def in_ci() -> bool:
    """Whether a missing requirement is a failure."""
    return os.environ.get("CI", "").lower() == "true"


def require(names: Iterable[str]) -> None:
    """Skip the calling test unless all that ``names`` stand for is there; with ``CI=true`` fail it."""
    missing = [advice for name in dict.fromkeys(names) for there, advice in [CHECKS[name]] if not there()]
    if missing:
        message = f"no real clients here: {', '.join(missing)}"
        if in_ci():
            pytest.fail(message)
        pytest.skip(message)
