"""Surroundings of an equation in the user's Python: arguments, modules, PyTorch's modes, failure."""
