"""What `llama-gguf gen` writes: sections of the reference and the API description."""
