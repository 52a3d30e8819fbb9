"""The environments in the words of other libraries, one library a file; each needs that library installed."""
