"""The kernels that guests boot, as the distribution installs them: where, their modules, the raw image.

QEMU boots an uncompressed ``vmlinux`` through PVH a quarter of a second sooner than the ``bzImage`` around
it. Debian packs its cloud kernel with LZ4, for which Python has no module, but every machine with apt has the
library. Where the payload is packed otherwise the ``bzImage`` boots as it is.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import gzip
import lzma
import re
import struct
from collections.abc import Iterable
from pathlib import Path

MODULES = Path("/lib/modules")
UML_MODULES = Path("/usr/lib/uml/modules")
LZ4_LEGACY = b"\x02\x21\x4c\x18"
LZ4_BLOCK = 8 << 20  # an LZ4 legacy block unpacks to at most this


def cloud_kernel() -> Path | None:
    """Return the newest installed kernel whose modules are there too, a cloud kernel if there is one."""

    def rank(path: Path) -> tuple[bool, list[int]]:
        return "cloud" in path.name, [int(number) for number in re.findall(r"\d+", path.name)]

    found = [path for path in Path("/boot").glob("vmlinuz-*") if (MODULES / _release(path)).is_dir()]
    return max(found, key=rank, default=None)


def module_directory(kernel: Path) -> Path:
    """Return the directory of the modules that belong to a kernel in /boot."""
    return MODULES / _release(kernel)


def uml_module_directory() -> Path | None:
    """Return the directory of User-Mode Linux's modules."""
    return max(UML_MODULES.glob("*"), default=None)


def load_order(directory: Path, wanted: Iterable[str]) -> list[Path]:
    """Return the module files to load for ``wanted``, dependencies first, without what is built in."""
    needs: dict[str, list[str]] = {}
    paths: dict[str, str] = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        path, _, dependencies = line.partition(":")
        needs[path] = dependencies.split()
        paths[Path(path).name.split(".")[0].replace("-", "_")] = path
    order: list[str] = []

    def add(path: str) -> None:
        if path not in order:
            for dependency in needs[path]:
                add(dependency)
            order.append(path)

    for name in wanted:
        if name in paths:
            add(paths[name])
    return [directory / path for path in order]


def module_bytes(path: Path) -> bytes:
    """Return a module's ELF file, unpacked if the distribution packs its modules."""
    data = path.read_bytes()
    return {".xz": lzma.decompress, ".gz": gzip.decompress}.get(path.suffix, bytes)(data)


def write_vmlinux(kernel: Path, target: Path) -> Path:
    """Unpack a bzImage's payload to ``target`` and return that; ``kernel`` if it is packed otherwise."""
    image = kernel.read_bytes()
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    # The last four bytes are the unpacked size, put there for the boot code.
    payload = memoryview(image)[start : start + length - 4]
    library = ctypes.util.find_library("lz4")
    if bytes(payload[:4]) != LZ4_LEGACY or library is None:
        return kernel
    decompress = ctypes.CDLL(library).LZ4_decompress_safe
    position = 4
    room = ctypes.create_string_buffer(LZ4_BLOCK)
    with target.open("wb") as file:
        while position < len(payload):
            (size,) = struct.unpack_from("<I", payload, position)
            block = bytes(payload[position + 4 : position + 4 + size])
            unpacked = decompress(block, room, len(block), LZ4_BLOCK)
            if unpacked < 0:
                raise ValueError(f"{kernel}: its LZ4 payload is damaged")
            file.write(memoryview(room)[:unpacked])
            position += 4 + size
    return target


def _release(kernel: Path) -> str:
    return kernel.name.removeprefix("vmlinuz-")
