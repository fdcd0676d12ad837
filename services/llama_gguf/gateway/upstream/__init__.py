"""llama-server over its unix socket."""
