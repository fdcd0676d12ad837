"""Which models are in memory: what is loaded, what gives way, and when. Pure; the caller passes the time."""
