"""Many pairs at once: a manifest checked whole, its jobs on dask's workers, a table that can be resumed."""
