"""Workers of a running switch that do what a test says."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0


class TakenOver:
    """The test's ends of the workers that a switch starts while ``environment`` is its environment."""

    def __init__(self, directory: Path) -> None:
        self._path = str(directory / "taken-over")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self._path)
        os.chmod(self._path, 0o777)
        self._listener.listen(64)
        self._listener.settimeout(PATIENCE_S)
        self._workers: dict[int, socket.socket] = {}

    def environment(self) -> dict[str, str]:
        """What makes workers come here."""
        return {"PYTHONPATH": str(Path(__file__).parent), "BULKHEAD_TAKEN_OVER": self._path}

    def run(self, pid: int, source: str, **facts: object) -> dict[str, Any]:
        """Run source in that worker; it fills ``said``, which is returned."""
        while pid not in self._workers:
            sock, _ = self._listener.accept()
            sock.settimeout(PATIENCE_S)
            self._workers[int(sock.recv(64))] = sock
        self._workers[pid].send(f"facts = {facts!r}\n{source}".encode())
        answer: dict[str, Any] = json.loads(self._workers[pid].recv(1 << 20))
        assert "failed" not in answer, answer
        return answer

    def close(self) -> None:
        for sock in self._workers.values():
            sock.close()
        self._listener.close()
