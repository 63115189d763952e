"""The science of one batch of trials: task, noise, network, recurrence, losses."""
