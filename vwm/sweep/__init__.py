"""Many runs: the grid, what is left to do, launching, status, and the tables. Imports no torch."""
