"""How a trained network remembers: one module an analysis, each with `analyse(...)` and `plot(result)`."""
