"""A log that is not read costs its own lines and nothing else."""

from __future__ import annotations

import os
import re

from supervisor.base.log_writer import LINES, LogWriter
from tests.helpers.guests.waiting import wait_for


def test_lines_are_written_in_order_and_flush_waits_for_them() -> None:
    read, write = os.pipe()
    writer = LogWriter(write)
    for number in range(500):
        writer.put(f"line {number}")
    writer.flush(10.0)
    assert os.read(read, 1 << 16).decode().splitlines() == [f"line {number}" for number in range(500)]
    assert writer.lost == 0


def test_a_full_pipe_does_not_block_and_lost_lines_are_counted_and_logged() -> None:
    read, write = os.pipe()
    writer = LogWriter(write)
    line = 99 * "x"
    for _ in range(5000):
        writer.put(line)
    writer.flush(0.2)
    lost = writer.lost
    assert lost >= 5000 - LINES - (1 << 16) // 100 - 2
    text = bytearray()

    def all_read() -> bool:
        text.extend(os.read(read, 1 << 16))
        return text.count(b"x\n") == 5000 - lost

    wait_for(all_read, "the lines that were not lost")
    writer.put("last")
    wait_for(lambda: text.extend(os.read(read, 1 << 16)) or b"last\n" in text, "the last line")
    said = re.findall(rb"(\d+) lines of the log were lost: it was not read\n", text)
    assert sum(map(int, said)) == lost


def test_a_log_that_cannot_be_written_is_counted() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(full)
    for _ in range(3):
        writer.put("no space for this")
    writer.flush(10.0)
    assert writer.lost == 3
