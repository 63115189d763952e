"""Training of runs: their state, checkpoints, the loop for a pack, the final evaluation."""
