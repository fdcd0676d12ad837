"""What happened: metrics, access log, usage by key and day."""
