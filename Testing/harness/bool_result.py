"""``PythonQt.BoolResult``."""

from __future__ import annotations


class BoolResult:
    """PythonQt's way to pass a C++ bool* argument, such as the 'ok' of QInputDialog.getText."""

    def __init__(self, value=False):
        self.value = value

    def __bool__(self):
        return bool(self.value)
