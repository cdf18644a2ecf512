"""The root file system that QEMU guests and User-Mode Linux boot from: busybox, iperf3, modules, an agent.

Written as a "newc" cpio archive by hand: that takes forty lines, neither root nor the cpio tool, and owners
and device nodes come out right for every user. Left uncompressed, because unpacking it in an emulated CPU
takes longer than copying it.

The agent is a shell script on the console. It reads lines ``NUMBER COMMAND`` and answers each with the
command's output between two marks (``console`` is the other end). A command's output goes through a file, not
a pipe, so that a process left in the background delays no test.
"""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from tests.helpers.guests import console, kernel

QEMU_MODULES = ("virtio_mmio", "virtio_pci", "virtio_net", "8021q")
UML_MODULES = ("ipv6", "af_packet", "virtio_net", "8021q")

INIT = f"""#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /lib/modules/$(uname -r)/load); do insmod /lib/modules/$(uname -r)/$module; done
ip link set lo up
stty raw -echo
echo '{console.READY}'
while read -r number command; do
    sh -c "$command" </dev/null >/tmp/output 2>&1
    code=$?
    printf '<<%s begin>>\\n' "$number"
    cat /tmp/output
    printf '\\n<<%s end %d>>\\n' "$number" "$code"
done
poweroff -f
"""


class Archive:
    """A newc cpio archive being written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def directory(self, name: str) -> None:
        """Add a directory and those above it."""
        parts = Path(name).parts
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path not in self._names:
                self._add(path, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, data: bytes, mode: int = 0o755) -> None:
        """Add a regular file."""
        self.directory(str(Path(name).parent))
        self._add(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int) -> None:
        """Add a character device node."""
        self._add(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def finish(self) -> bytes:
        """Return the archive."""
        self._add("TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _add(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._names.add(name)
        path = name.encode() + b"\0"
        fields = (len(self._names), mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        for part in (header + path, data):
            self._parts.append(part + b"\0" * (-len(part) % 4))


def build(cloud_kernel: Path | None) -> bytes:
    """Return the archive, with modules for ``cloud_kernel`` and User-Mode Linux as far as they are there."""
    archive = Archive()
    for name in ("proc", "sys", "dev", "tmp", "bin"):
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    archive.file("init", INIT.encode())
    archive.file("bin/busybox", Path("/bin/busybox").read_bytes())
    for applet in _output("/bin/busybox", "--list").split():
        if applet != "busybox":
            archive.link(f"bin/{applet}", "busybox")
    _add_program(archive, Path("/usr/bin/iperf3"))
    if cloud_kernel is not None:
        _add_modules(archive, kernel.module_directory(cloud_kernel), QEMU_MODULES)
    uml = kernel.uml_module_directory()
    if uml is not None:
        _add_modules(archive, uml, UML_MODULES)
    return archive.finish()


def _add_program(archive: Archive, program: Path) -> None:
    archive.file(f"bin/{program.name}", program.read_bytes())
    for line in _output("ldd", str(program)).splitlines():
        for word in line.split():
            if word.startswith("/"):
                archive.file(word[1:], Path(word).read_bytes())


def _add_modules(archive: Archive, directory: Path, wanted: tuple[str, ...]) -> None:
    target = f"lib/modules/{directory.name}"
    names = []
    for path in kernel.load_order(directory, wanted):
        name = path.name.split(".")[0] + ".ko"
        archive.file(f"{target}/{name}", kernel.module_bytes(path), 0o644)
        names.append(name)
    archive.file(f"{target}/load", "\n".join(names).encode(), 0o644)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
