"""Groups of settings within `engine`."""
