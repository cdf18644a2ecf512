"""What the rest of the supervisor stands on: its log, its runtime directory, its unix sockets."""
