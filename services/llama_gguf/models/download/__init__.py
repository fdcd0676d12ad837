"""Large files over HTTP: several connections, resumable, verified, complete or not visible at all."""
