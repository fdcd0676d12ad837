"""Rate limits and quotas of keys, and the stores of their counts."""
