"""What llama-server and this machine must have for the settings; `check` and the engine's program ask the same."""
