"""How every method runs on a pair: the same files, a process of its own, one measurement for all."""
