"""``supervisor web``: a page, metrics and server-sent events, in a process of its own beside the switch."""
