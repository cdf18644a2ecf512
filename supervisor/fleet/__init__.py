"""Worker processes: started, given their descriptors and rings, told of each other, watched and replaced."""
