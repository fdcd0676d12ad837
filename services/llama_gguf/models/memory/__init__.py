"""How much memory a model takes, before it is loaded. Pure."""
