"""Captures are read by tshark and capinfos as they were written."""

import json
import subprocess
from pathlib import Path

import pytest

from supervisor.capture.pcapng import IN, OUT, interface, packet, section, statistics
from tests.helpers.guests import requirements

FRAMES = [bytes(12) + b"\x88\xb5" + bytes(range(size)) for size in (46, 47, 48, 49)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    requirements.require(("tshark",))
    path = tmp_path / "capture.pcapng"
    blocks = [
        section("bulkhead 0.1.0"),
        interface("qemu-1", "port 1, qemu", 65535),
        interface("web", "port 2", 65535),
    ]
    for number, frame in enumerate(FRAMES):
        dropped = "dropped: egress_full" if number == 3 else ""
        time_ns = 1_700_000_000_123_456_789 + number
        length = len(frame) + (1000 if number == 2 else 0)
        blocks.append(
            packet(number % 2, time_ns, frame, length, flags=IN if number % 2 else OUT, comment=dropped)
        )
    path.write_bytes(b"".join([*blocks, statistics(0, 1_700_000_001_000_000_000, 4, 7)]))
    return path


def test_tshark_reads_the_file(file: Path) -> None:
    done = subprocess.run(
        ["tshark", "-r", file, "-T", "json", "-x"], capture_output=True, text=True, check=True
    )
    read = [each["_source"]["layers"] for each in json.loads(done.stdout)]
    assert [bytes.fromhex(each["frame_raw"][0]) for each in read] == FRAMES
    assert [each["frame"]["frame.interface_id"] for each in read] == ["0", "1", "0", "1"]
    assert [each["frame"]["frame.len"] for each in read] == ["60", "61", "1062", "63"]
    names = [each["frame"]["frame.interface_id_tree"]["frame.interface_name"] for each in read]
    assert names == ["qemu-1", "web", "qemu-1", "web"]
    assert "123456792" in read[3]["frame"]["frame.time"]
    assert "dropped: egress_full" in done.stdout
    assert done.stdout.count("dropped: ") == done.stdout.count("dropped: egress_full")


def test_capinfos_finds_nothing_wrong(file: Path) -> None:
    done = subprocess.run(["capinfos", "-c", "-I", file], capture_output=True, text=True, check=True)
    assert "Number of packets:   4" in done.stdout
    assert "Number of interfaces in file: 2" in done.stdout
    assert "Number of stat entries = 1" in done.stdout
