"""Stand-in for slicer.testing."""

import importlib


def runUnitTest(path, testname):
    """Run a module's self test or a unittest module of this name; raises when a test fails."""
    import sys
    import unittest

    for folder in [path] if isinstance(path, str) else path:
        if folder not in sys.path:
            sys.path.append(folder)
    suite = unittest.TestLoader().loadTestsFromModule(importlib.import_module(testname))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if not result.wasSuccessful():
        raise AssertionError(f"{testname} failed")
    return result
