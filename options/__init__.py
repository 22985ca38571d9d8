"""Options of every package as text."""
