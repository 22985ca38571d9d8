"""The pages to read before writing a solver: problems, the update rule, states, stopping, solutions."""
