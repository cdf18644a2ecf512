"""What a process knows and changes of itself: its cell, its limits and its name."""
