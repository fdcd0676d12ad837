"""One module per command of `llama-gguf`, imported only when it is used."""
