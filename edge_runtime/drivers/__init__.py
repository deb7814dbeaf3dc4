"""The device's outside world: its files, its training process, its local API, the large model."""
