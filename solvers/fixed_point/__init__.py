"""Plain iteration and its accelerations."""
