"""The coordinator's outside world: its journal and the embedded broker."""
