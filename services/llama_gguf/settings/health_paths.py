"""The paths of the health server. The gateway uses some of the same paths for its own liveness and state."""

PING = "/ping"
"""The platform's health check; the default of `health.path`."""
LIVE, READY, STARTUP = "/livez", "/readyz", "/startupz"
"""Kubernetes' liveness, readiness and startup probes."""
DETAILS = "/health"
