"""Understands the bodies of inference requests: what each field may be, and what is changed on the way."""
