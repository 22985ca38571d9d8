"""Minima: least squares, objectives, optimality conditions as fixed points, and small programmes."""
