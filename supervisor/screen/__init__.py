"""What answers look like on a terminal. A running switch imports nothing of it."""
