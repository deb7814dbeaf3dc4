"""Releases on a device: fetch, try, install, and roll back what does not work."""
