"""The loop that drives every solver and its bookkeeping; a solver needs nothing of it."""
