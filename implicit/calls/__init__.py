"""One call: what is asked for, how it is solved, and what is given back."""
