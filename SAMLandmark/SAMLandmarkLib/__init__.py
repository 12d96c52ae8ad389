"""Landmarks, live matching and lesion tracking between scene and engine; shares its glue with SAMConvexRegistrationLib.

Nothing but the panels imports Qt; torch is only used by the separate processes that run the engine.
"""
