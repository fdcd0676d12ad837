"""What is on disk of models, whose it is, and what can be removed. Never touches the network."""
