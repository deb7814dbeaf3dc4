"""A fleet: its folder on the operator's machine, its authority, and a bundle for every board."""
