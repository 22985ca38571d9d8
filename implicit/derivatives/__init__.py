"""Derivatives that the caller gives: Jacobians, their patterns, preconditioners."""
