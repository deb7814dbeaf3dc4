"""The demonstration: a whole federation on one machine, with data as smart homes have it."""
