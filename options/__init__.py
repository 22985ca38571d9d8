"""Options of every package: validation with the nearest valid name, names of classes, options as text."""
