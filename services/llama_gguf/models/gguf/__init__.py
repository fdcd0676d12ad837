"""GGUF headers, read without numpy."""
