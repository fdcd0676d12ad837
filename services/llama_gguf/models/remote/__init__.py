"""Headers of models that are not on disk, for a plan that downloads nothing else."""
