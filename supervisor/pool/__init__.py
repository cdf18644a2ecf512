"""Worker processes: start them ahead of need, talk to each over its channel, and end them."""
