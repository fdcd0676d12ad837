"""How the time that a request takes is averaged, for saying when to try again: a moving average, weighed by these."""

GUESS_SECONDS = 5.0
"""What is taken for the average until a request has ended."""
SMOOTHING = 0.1
"""How much the latest request counts."""
