"""Show answers on a terminal. A running switch does not import this."""
