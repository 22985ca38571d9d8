"""Processes of cells: their channel, their tasks, and their end."""
