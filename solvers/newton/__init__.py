"""Newton's method, dense and matrix-free, and globalisations that lead it from poor starts."""
