"""What clients may call and are told: routes, keys, bodies, errors. Pure."""
