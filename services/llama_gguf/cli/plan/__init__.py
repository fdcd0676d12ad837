"""What `plan` shows, gathered, as JSON and as text."""
