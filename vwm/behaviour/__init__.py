"""Errors of any responder, network or human: circular statistics, mixture models, tables. Knows nothing of torch."""
