"""The registration module alone: parameters, logic and panel; requests, results, presets, preview and batch."""
