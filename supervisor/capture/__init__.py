"""Captured frames on their way to a file: filters, the pcapng format, the viewer's end."""
