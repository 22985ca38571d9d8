"""Many small systems in code that Numba compiles."""
