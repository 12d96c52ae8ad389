"""Modal dialogs in tests: answers are given beforehand, and a dialog that nobody expected is an error, not a hang.

answers.expect("QInputDialog.getText", "Liver follow-up")
answers.expect("QMessageBox.exec_", qt.QMessageBox.Yes)
answers.expect("QDialog.exec_", lambda dialog: dialog.accept())      # a function gets the open dialog
"""

from __future__ import annotations

from collections import defaultdict, deque

from PySide6 import QtCore, QtGui, QtWidgets

from .bool_result import BoolResult

WATCHDOG_SECONDS = 5


class UnexpectedDialog(AssertionError):
    """A modal dialog opened that the test had given no answer for."""


class Answers:
    """Queues of answers by ``Class.function``; on a desktop nothing is intercepted."""

    def __init__(self):
        self._queues = defaultdict(deque)
        self.opened = []  # (function, title or text) of every dialog that opened

    def expect(self, function, answer):
        self._queues[function].append(answer)

    def clear(self):
        self._queues.clear()
        self.opened.clear()

    def unused(self):
        return [name for name, queue in self._queues.items() if queue]

    def take(self, *functions):
        """(True, answer) of the first queue that has one, else (False, None)."""
        for function in functions:
            if self._queues[function]:
                return True, self._queues[function].popleft()
        return False, None


answers = Answers()


def _on_desktop():
    return QtGui.QGuiApplication.platformName() != "offscreen"


def install_dialogs():
    """Wrap the modal calls of PySide6's dialogs, giving the static ones PythonQt's bare return values."""
    for name in ("getOpenFileName", "getSaveFileName", "getOpenFileNames", "getExistingDirectory"):
        _wrap_static(QtWidgets.QFileDialog, name, first_of_tuple=name != "getExistingDirectory")
    for name in ("getText", "getItem", "getInt", "getDouble", "getMultiLineText"):
        _wrap_static(QtWidgets.QInputDialog, name, first_of_tuple=True, cancelled_is_empty=True)
    for name in ("question", "information", "warning", "critical"):
        _wrap_static(QtWidgets.QMessageBox, name)
    _wrap_static(QtWidgets.QColorDialog, "getColor")
    for cls in (QtWidgets.QDialog, QtWidgets.QMessageBox):
        _wrap_exec(cls)
    _wrap_menu_exec()


def _wrap_static(cls, name, first_of_tuple=False, cancelled_is_empty=False):
    native = getattr(cls, name)
    function = f"{cls.__name__}.{name}"

    def call(*args, **kwargs):
        results = [a for a in args if isinstance(a, BoolResult)]
        args = [a for a in args if not isinstance(a, BoolResult)]
        answers.opened.append((function, " ".join(a for a in args if isinstance(a, str))))
        found, answer = answers.take(function)
        if not found:
            if not _on_desktop():
                raise UnexpectedDialog(f"{function} opened without an answer: {answers.opened[-1][1]}")
            answer = native(*args, **kwargs)
            if first_of_tuple:
                answer, accepted = answer[0], answer[1]
                if cancelled_is_empty and not accepted:
                    answer = type(answer)()
        for result in results:
            result.value = bool(answer)
        return answer

    setattr(cls, name, staticmethod(call))


def _wrap_exec(cls):
    native = cls.exec

    def execute(self, *args):
        text = self.property("text") or self.property("windowTitle") or ""
        # A class's own queue first: "QMessageBox.exec_" answers message boxes, "QDialog.exec_" every dialog.
        names = [f"{c.__name__}.exec_" for c in type(self).__mro__ if issubclass(c, QtWidgets.QDialog)]
        answers.opened.append((names[0], text))
        found, answer = answers.take(*names)
        if found and callable(answer):
            QtCore.QTimer.singleShot(0, lambda: answer(self))
            return native(self, *args)
        if found:
            return answer
        if _on_desktop():
            return native(self, *args)
        if isinstance(self, QtWidgets.QMessageBox):
            raise UnexpectedDialog(f"a message box opened without an answer: {text}")
        # Dialogs that close themselves (slicer.util.delayDisplay) are allowed to.
        late = []
        watchdog = QtCore.QTimer()
        watchdog.setSingleShot(True)
        watchdog.timeout.connect(lambda: (late.append(True), self.reject()))
        watchdog.start(WATCHDOG_SECONDS * 1000)
        result = native(self, *args)
        watchdog.stop()
        if late:
            raise UnexpectedDialog(f"a dialog stayed open for {WATCHDOG_SECONDS} s: {text or names[0]}")
        return result

    cls.exec = execute
    cls.exec_ = execute


def _wrap_menu_exec():
    native = QtWidgets.QMenu.exec

    def execute(self, *args):
        answers.opened.append(("QMenu.exec_", self.property("title") or ""))
        found, answer = answers.take("QMenu.exec_")
        if found:
            return answer
        if _on_desktop():
            return native(self, *args)
        raise UnexpectedDialog("a menu opened without an answer")

    QtWidgets.QMenu.exec = execute
    QtWidgets.QMenu.exec_ = execute
