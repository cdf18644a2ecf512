"""Fixtures for tests that drive the switch from outside.

``switch`` is a factory: ``switch(qemu=True, vfkit=2)`` starts one with these listeners. At the end of the
test every switch made so is stopped by ``supervisor stop``, must end with 0 and must leave nothing; one
that a test stopped or killed itself is only looked at for what it left. Its log is shown when the test
fails.

``guest_images`` is what guests boot from, made once a session.

``tmp_path`` is not pytest's, whose path is too long for sockets with the names of a test and a process in it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.guests import initramfs, kernel, requirements
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch, Wrap
from tests.helpers.guests.waiting import wait_for


class Images(NamedTuple):
    """What guests boot from; ``vmlinux`` is None where no kernel for QEMU is installed."""

    initramfs: Path
    vmlinux: Path | None


StartSwitch = Callable[..., Switch]


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """Give a temporary directory with a path short enough for sockets (107 bytes), which pytest's are not."""
    directory = Path(tempfile.mkdtemp(prefix="bh-"))
    try:
        yield directory
    finally:
        # A process that a test has just ended may still make a file.
        wait_for(lambda: _is_removed(directory), f"{directory} to be removed, in which a process makes files")


def _is_removed(directory: Path) -> bool:
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Give the test a directory of its own."""
    with short_directory() as directory:
        yield directory


@contextlib.contextmanager
def running_switch(wrap: Wrap = list) -> Iterator[Switch]:
    """Give a switch to be started; in any case it is gone afterwards, and it must go in good order."""
    with short_directory() as directory:
        switch = Switch(directory, wrap=wrap)
        try:
            yield switch
            if switch.process is not None and switch.process.poll() is None:
                switch.stop()
            else:
                switch.assert_nothing_left()
        finally:
            switch.kill()
            if switch.process is not None:
                print(f"log of the switch in {directory}:\n{switch.log()}")


@pytest.fixture
def switch() -> Iterator[StartSwitch]:
    """Start switches: ``switch(qemu=True, bess=True, vfkit=1, tcp=True, taps=[…])``."""
    with contextlib.ExitStack() as stack:

        def start(*flags: str, **listeners: object) -> Switch:
            new = stack.enter_context(running_switch())
            return new.start(*new.arguments(**listeners), *flags)  # type: ignore[arg-type]

        yield start


@pytest.fixture
def namespace() -> Iterator[Callable[[str], Namespace]]:
    """Make network namespaces that end with the test: ``namespace("left")``."""
    requirements.require(requirements.NAMESPACE)
    with contextlib.ExitStack() as stack:

        def make(name: str) -> Namespace:
            return stack.enter_context(contextlib.closing(Namespace(name)))

        yield make


@pytest.fixture(scope="session")
def guest_images() -> Iterator[Images]:
    """What guests boot from, made once."""
    requirements.require(("busybox", "iperf3"))
    with short_directory() as directory:
        bootable = kernel.cloud_kernel()
        root = directory / "initramfs"
        root.write_bytes(initramfs.build(bootable))
        vmlinux = kernel.write_vmlinux(bootable, directory / "vmlinux") if bootable is not None else None
        yield Images(root, vmlinux)
