"""The name and the command line of this process in ps(1) and top(1): a fork begins with its parent's."""

import os
from contextlib import suppress

COMM = "/proc/self/comm"
COMM_BYTES = 16
STAT, MEMORY = "/proc/self/stat", "/proc/self/mem"
ARGUMENTS = 45
"""The place of arg_start behind the name in STAT; arg_end follows (proc(5))."""


def rename(name: str) -> str:
    """Give this process another name, of 15 bytes at most. Returns its earlier name."""
    try:
        comm = os.open(COMM, os.O_RDWR | os.O_CLOEXEC)  # a text file of Python would cost a fork 0.1 MiB
    except OSError:
        return ""  # without this file in the kernel, all processes have one name
    try:
        before = os.read(comm, COMM_BYTES).decode(errors="replace").strip()
        os.write(comm, name.encode())
        return before
    finally:
        os.close(comm)


def rewrite_command_line(*words: str) -> None:
    """Write these words over the command line, if they fit in its place, as ps(1) and pgrep(1) show it."""
    with suppress(OSError):
        with open(STAT) as stat:
            start, end = map(int, stat.read().rpartition(")")[2].split()[ARGUMENTS : ARGUMENTS + 2])
        line = b"".join(word.encode() + b"\0" for word in words)
        if len(line) <= end - start:
            with open(MEMORY, "r+b", buffering=0) as memory:
                memory.seek(start)
                memory.write(line.ljust(end - start, b"\0"))
