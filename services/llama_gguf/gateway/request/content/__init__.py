"""What a client says and shows: messages, prompts, tools, media. Pure."""
