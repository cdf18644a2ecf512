"""IP packets of guests as bytes: read, written and reassembled; pure."""
