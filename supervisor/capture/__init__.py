"""Captures: filters, the pcapng format, the supervisor's side and the viewer's side."""
