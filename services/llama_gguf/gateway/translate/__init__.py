"""Answers that the engine writes in another shape than their API has, brought into it."""
