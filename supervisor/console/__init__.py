"""Commands of operators: server, client, and the answers."""
