"""What one reads to write a solver: problems, the update rule, states, stopping, solutions."""
