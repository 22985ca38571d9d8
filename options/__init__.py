"""Options of every package: validation, names of classes in configurations, options as text."""
