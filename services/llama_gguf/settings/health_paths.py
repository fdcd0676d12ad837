"""The paths of the health server. The gateway has some of the same names for its own liveness and state."""

PING = "/ping"
"""The platform's own health check, where `health.path` does not say another."""
LIVE, READY, STARTUP = "/livez", "/readyz", "/startupz"
"""What Kubernetes' three probes ask."""
DETAILS = "/health"
