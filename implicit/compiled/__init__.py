"""Equations given as functions that Numba compiles."""
