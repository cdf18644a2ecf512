"""What a port is and which states, settings and limits it has: pure, no process and no socket."""
