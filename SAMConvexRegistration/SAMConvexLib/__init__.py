"""Glue of both Slicer modules, which knows neither: nodes to files and back, the job, its panel, sentences about it.

Only the panels and the timer use Qt; torch is only used by the separate process that runs the engine.
"""
