"""The laboratory: ways between sockets, namespaces, and a host and a VM; ours and others'."""
