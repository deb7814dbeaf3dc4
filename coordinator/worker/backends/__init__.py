"""Where a worker's large model may be: this process, or a server that tells parts of each row."""
