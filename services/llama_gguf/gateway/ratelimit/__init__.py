"""How much a key may use: limits, quotas, and the stores that count."""
