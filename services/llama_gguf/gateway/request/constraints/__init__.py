"""What an answer must look like: JSON schemas, patterns, grammars. Pure."""
