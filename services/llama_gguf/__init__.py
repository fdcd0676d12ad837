"""llama-gguf-inference: one YAML file puts a GGUF model behind an OpenAI-compatible endpoint.

The package map, and which part may import which, is asserted by tests/contract/test_architecture.py.
"""

__version__ = "0.1.0"
