"""Functions of NumPy arrays as equations."""
