"""The user's Python around an equation: arguments, modules, PyTorch's modes, failure."""
