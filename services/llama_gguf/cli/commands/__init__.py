"""One module a command of `llama-gguf`, imported only when it is asked for."""
