"""Single questions, each a script of its own: memory, solvers, latency, one network against another."""
