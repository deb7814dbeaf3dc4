"""Flashing: a device's bundle into an operating system's disk image, and the image onto a card."""
