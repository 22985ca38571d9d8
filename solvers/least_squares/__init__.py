"""Least squares: Gauss–Newton models with trust regions, dense and by products."""
