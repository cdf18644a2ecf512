"""The gateway's process and port, from the supervisor's side."""
