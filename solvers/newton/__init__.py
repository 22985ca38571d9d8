"""Newton's method, dense and matrix-free, and what leads it from far away."""
