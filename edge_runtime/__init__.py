"""The device: local training, the assistant, the daemon."""
