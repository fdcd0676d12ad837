"""The records in the run directory through which the programs communicate: each with its writer and its reader."""
