"""What must be true of a model's files before llama-server gets them; `check` and the engine's program ask the same."""
