"""Engine settings that are left to the plan: what is chosen for this machine as it is at the start."""
