"""The landmark module alone: landmarks, live matching and lesion tracking between scene and engine.

Nothing but the panels imports Qt; torch is only used by the separate processes that run the engine.
"""
