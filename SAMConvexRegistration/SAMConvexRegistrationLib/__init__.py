"""What the Slicer modules of this extension share: nodes to files and back, the job, presets, preview and results.

Nothing here imports Qt; torch is only used by the separate process that runs the engine.
"""
