"""Fidelity, perception, realism, each figure under its own name and protocol."""
