"""Compile the filters of captures, with libpcap, to classic BPF.

The library (Debian: libpcap0.8) is loaded only for a filter, so a switch does not need it. The result is a
program for the workers' own interpreter (``capture/cbpf.h``), in the bytes of ``struct bpf_insn``.
"""

import ctypes
import ctypes.util
from typing import cast

from forwarder.errors import LocalError

ETHERNET = 1
SNAP = 262_144
"""libpcap's MAXIMUM_SNAPLEN: a program returns it for an accepted frame."""
INSTRUCTION_BYTES = 8
MOST_BYTES = 4096 * INSTRUCTION_BYTES
"""The kernel's BPF_MAXINSNS."""
MOST_TEXT = 4096
"""Bytes of an expression: libpcap's time grows with the square of its parts, 5 s for 300 hosts."""
SHOWN = 60
"""Characters of an expression in a sentence about it."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def _library() -> ctypes.CDLL:
    name = ctypes.util.find_library("pcap")
    if name is None:
        raise LocalError("a filter needs libpcap; install the package libpcap0.8")
    library = ctypes.CDLL(name)
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = [ctypes.c_void_p]
    library.pcap_compile.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(_Program),
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_uint32,
    ]
    library.pcap_close.argtypes = [ctypes.c_void_p]
    library.pcap_freecode.argtypes = [ctypes.POINTER(_Program)]
    return library


def compile_filter(expression: str) -> bytes:
    """Return the program of an expression of pcap-filter(7). Raises LocalError with libpcap's reason."""
    said = repr(expression if len(expression) <= SHOWN else f"{expression[:SHOWN]}…")
    if len(expression.encode()) > MOST_TEXT:
        raise LocalError(f"the filter {said} is too long: {MOST_TEXT} bytes at most")
    library = _library()
    handle = library.pcap_open_dead(ETHERNET, SNAP)
    if not handle:
        raise LocalError("libpcap has no memory for a filter")
    program = _Program()
    try:
        if library.pcap_compile(handle, program, expression.encode(), 1, 0xFFFFFFFF) != 0:
            why = cast(bytes, library.pcap_geterr(handle)).decode(errors="replace")
            raise LocalError(f"the filter {said} does not compile: {why}")
        size = program.length * INSTRUCTION_BYTES
        code = ctypes.string_at(cast(int, program.instructions), size)
        library.pcap_freecode(program)
    finally:
        library.pcap_close(handle)
    if size > MOST_BYTES:
        raise LocalError(f"the filter {said} is too long: {program.length} instructions, 4096 at most")
    return code
