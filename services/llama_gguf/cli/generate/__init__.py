"""What `llama-gguf gen` writes: the reference and the OpenAPI description."""
