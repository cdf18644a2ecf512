"""One worker process: the sole owner of one VM's socket and of every write to it."""
