"""Hugging Face repositories and their cache's layout."""
