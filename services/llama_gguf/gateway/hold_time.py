"""The parameters of the exponential moving average of a request's duration, which Retry-After is computed from."""

INITIAL_SECONDS = 5.0
"""The average until a request has ended."""
SMOOTHING = 0.1
"""The weight of the latest request."""
