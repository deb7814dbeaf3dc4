"""A device's private data: the store of examples, and what in them looks like a secret."""
