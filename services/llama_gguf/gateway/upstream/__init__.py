"""llama-server over its Unix socket."""
