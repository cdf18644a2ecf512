"""One worker process: the only user of one VM's socket."""
