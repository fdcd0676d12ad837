"""Who waits for whom: admission and the fair queue."""
