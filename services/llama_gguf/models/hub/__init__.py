"""Hugging Face repositories, and the layout of their cache."""
