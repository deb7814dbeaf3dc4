"""A logit worker: the large model, asked by many devices at once."""
