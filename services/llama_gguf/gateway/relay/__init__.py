"""One request's way to llama-server and its response's way back, counted."""
