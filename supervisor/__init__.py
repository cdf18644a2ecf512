"""The parent process: registry, listeners, worker processes, membership, statistics, command line."""
