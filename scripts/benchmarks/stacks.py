"""Where time goes: sampled call stacks (perf), counted instructions (callgrind), what they belong to.

A sample belongs to the first category that knows one of its functions, looked for from the innermost one
outwards, so that a lock taken for a wake-up counts as waking and the same lock taken for memory as memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import NamedTuple

CORE, MEMCPY, LIBC, PYTHON = "core", "copying in the core", "C library", "Python"
COPY, MEMORY, WAKING = "copying from and to the kernel", "the kernel's memory", "sleeping and waking"
SOCKETS, ENTRY, KERNEL = "the kernel's sockets", "entering the kernel", "the kernel, other"
CATEGORIES = (CORE, MEMCPY, COPY, MEMORY, SOCKETS, WAKING, ENTRY, KERNEL, LIBC, PYTHON)

_KERNEL_WORDS = {
    category: re.compile(words)
    for category, words in {
        COPY: r"_?copy_(to|from)_iter|copy_page_(to|from)_iter|copy_user|rep_movs|_copy_(to|from)_user"
        r"|skb_copy_datagram|skb_datagram_iter|__check_(object|heap)_|__virt_addr_valid|copy_iovec",
        MEMORY: r"alloc|kfree|free_|slab|kmem_cache|memcg|obj_cgroup|page_counter|obj_stock|skb_release"
        r"|consume_skb|sock_wfree|rmqueue|get_page_from|memset|clear_page|fault",
        WAKING: r"schedul|task_switch|wake|ttwu|futex|eventfd|epoll|^ep_|sock_def_|sock_poll|unix_poll"
        r"|write_space|eventpoll|hrtimer|context_switch|pick_next|dequeue_|enqueue_",
        SOCKETS: r"unix_|sock|sendm?msg|recvm?msg|send(to|file)|recvfrom|import_iovec|skb|tun_|netif"
        r"|tcp_|ip_|inet_|vfs_(read|write)v?|ksys_(read|write)|fdget|fput",
    }.items()
}
_ENTRY = re.compile(r"do_syscall|entry_SYSCALL|x64_sys|syscall_|sysret|asm_")


class Sample(NamedTuple):
    """One look at one process."""

    pid: int
    stack: tuple[tuple[str, str], ...]
    """Function and file, the innermost first."""

    @property
    def function(self) -> str:
        """What ran, with the name of its file unless that is the kernel."""
        function, file = self.stack[0]
        return function if _in_kernel(file) else f"{function} ({PurePath(file).name})"


def read_perf(lines: Iterable[str]) -> Iterator[Sample]:
    """Read what ``perf script -F pid,ip,sym,dso`` prints."""
    pid = 0
    stack: list[tuple[str, str]] = []
    for line in [*lines, ""]:
        words = line.split()
        if not words:
            if stack:
                yield Sample(pid, tuple(stack))
            stack = []
        elif line[0].isspace() and "(" in words[-1]:
            stack.append((" ".join(words[1:-1]) or "[unknown]", words[-1].strip("()")))
        else:
            pid = int(words[0])


def category(stack: Iterable[tuple[str, str]]) -> str:
    """Say what a stack belongs to."""
    kernel = ""
    for function, file in stack:
        if not _in_kernel(file):
            return kernel or _outside(function, file)
        for name, words in _KERNEL_WORDS.items():
            if words.search(function):
                return name
        kernel = kernel or (ENTRY if _ENTRY.search(function) else KERNEL)
    return kernel or KERNEL


def _outside(function: str, file: str) -> str:
    if "_core." in file:
        return CORE
    if re.match(r"_*mem(move|cpy|set|cmp)", function):
        return MEMCPY
    if re.search(r"/(libc|ld-linux|libpthread)[.-]|\[vdso\]", file):
        return LIBC
    return PYTHON


def _in_kernel(file: str) -> bool:
    return (file.startswith("[") and file != "[vdso]") or file.endswith(".ko")


_COUNTED = re.compile(r"^ *([\d,]+) \([ \d.]+%\)  (?:.*/)?[^/:]*:(\S+)(?: \[(.*)\])?")


def read_callgrind(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """Read what ``callgrind_annotate`` prints: instructions, function and file, for each of its lines.

    Of a function that the compiler has put into others there are lines without a file: the core's.
    """
    for line in lines:
        if line.startswith("-- "):
            return  # from here on it lists sources
        match = _COUNTED.match(line)
        if match:
            yield int(match[1].replace(",", "")), match[2], match[3] or "_core.so"
