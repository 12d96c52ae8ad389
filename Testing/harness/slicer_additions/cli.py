"""Stand-in for slicer.cli: command-line modules are executables that slicer-core does not ship."""


def run(module, node=None, parameters=None, wait_for_completion=False, **options):
    raise RuntimeError("Command-line modules are not available in the stand-in application.")


def runSync(module, node=None, parameters=None, **options):
    return run(module, node, parameters, True, **options)
