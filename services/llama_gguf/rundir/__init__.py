"""The records in the run directory by which the programs know of one another: each with its writer and its reader."""
