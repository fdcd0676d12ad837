"""Checks beyond a single value: across settings, and of this machine."""
