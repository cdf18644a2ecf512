"""What an operator looks at, on a running switch: events, explain, captures, the page, metrics, screens."""
