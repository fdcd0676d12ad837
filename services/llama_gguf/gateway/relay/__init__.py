"""Relays one request to llama-server and the response to the client, and counts its tokens."""
