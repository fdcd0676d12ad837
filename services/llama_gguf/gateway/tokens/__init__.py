"""Arithmetic of tokens. Pure."""
