"""Equations of one unknown."""
