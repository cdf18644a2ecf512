"""IP packets of guests as bytes: read, written and put together; pure."""
