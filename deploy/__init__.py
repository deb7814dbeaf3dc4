"""Putting a fleet together: flashing boards, certificates, brokers, and the demonstration."""
