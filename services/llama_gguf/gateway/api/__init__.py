"""The API that clients see: routes, keys, request bodies, error responses. Pure."""
