"""Starts the daemon and real engines as processes, for the demo and the end-to-end tests."""
