"""Big files over HTTP: several connections, resumed, verified, whole or not at all."""
