"""What operators ask of a running switch, and what it answers."""
