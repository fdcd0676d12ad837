"""The engine's slots and the fair queue of requests that wait for one."""
