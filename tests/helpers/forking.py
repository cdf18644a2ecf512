"""A real template of workers whose forks do what a test says instead of serving a port."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROGRAM = """
import os, select, signal, socket, sys, time
from forwarder.channel import Channel, ChannelClosedError
from forwarder.messages import Assign, Ready
from forwarder.names import Cell
from workers import template

def serve_port(runtime_dir):
    exec(CODE, globals())
    return 0

CODE = sys.argv[1]
template.serve_port = serve_port
exec(sys.argv[2])
sys.exit(template.run(sys.argv[3]))
"""


def forking(code: str, runtime_dir: str, first: str = "") -> tuple[list[str], dict[str, str]]:
    """Return argument list and environment of a template whose workers run this; ``first`` runs before."""
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    # Its last words are those by which workers are found.
    words = [sys.executable, "-c", PROGRAM, code, first, runtime_dir, "-m", "workers", runtime_dir]
    return words, environment
