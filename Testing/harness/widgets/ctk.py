"""Stand-ins for CTK's widgets: the properties, signals and looks that our panels use."""

from __future__ import annotations

import os

from PySide6 import QtCore, QtGui, QtWidgets

Property = QtCore.Property
Signal = QtCore.Signal


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A header that folds what is laid out below it."""

    contentsCollapsed = Signal(bool)
    toggled = Signal(bool)
    clicked = Signal(bool)

    def __init__(self, *args):
        text = args[0] if args and isinstance(args[0], str) else ""
        parents = [a for a in args if isinstance(a, QtWidgets.QWidget)]
        super().__init__(*parents[:1])
        self._text = text
        self._collapsed = False
        self._hidden_by_us = []
        self._height = 24
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self.setContentsMargins(0, self._height + 2, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)

    def _getText(self):
        return self._text

    def _setText(self, text):
        self._text = text
        self.update()

    def _getCollapsed(self):
        return self._collapsed

    def _setCollapsed(self, collapsed):
        if self._collapsed == bool(collapsed):
            return
        self._collapsed = bool(collapsed)
        self._apply()
        self.update()
        self.contentsCollapsed.emit(self._collapsed)
        self.toggled.emit(not self._collapsed)

    def _getChecked(self):
        return not self._collapsed

    def _setChecked(self, checked):
        self._setCollapsed(not checked)

    text = Property(str, _getText, _setText)
    collapsed = Property(bool, _getCollapsed, _setCollapsed)
    checked = Property(bool, _getChecked, _setChecked)
    flat = Property(bool, lambda self: False, lambda self, value: None)
    checkable = Property(bool, lambda self: True, lambda self, value: None)
    contentsFrameShape = Property(int, lambda self: 0, lambda self, value: None)
    collapsedHeight = Property(int, lambda self: 0, lambda self, value: None)

    setText = _setText
    setCollapsed = _setCollapsed
    setChecked = _setChecked

    def isChecked(self):
        return not self._collapsed

    def click(self):
        self._setCollapsed(not self._collapsed)
        self.clicked.emit(not self._collapsed)

    def childEvent(self, event):
        super().childEvent(event)
        if self._collapsed and event.added():
            QtCore.QTimer.singleShot(0, self._apply)

    def showEvent(self, event):
        self._apply()
        super().showEvent(event)

    def _apply(self):
        """Hide the contents, or show again what was hidden here: a child that the module hid stays hidden."""
        if self._collapsed:
            for child in self.children():
                if isinstance(child, QtWidgets.QWidget) and not child.isHidden():
                    child.setVisible(False)
                    self._hidden_by_us.append(child)
            self.setMaximumHeight(self._height + 2)
        else:
            for child in self._hidden_by_us:
                child.setVisible(True)
            self._hidden_by_us.clear()
            self.setMaximumHeight(16777215)
        self.updateGeometry()

    def _header(self):
        return QtCore.QRect(0, 0, self.property("width"), self._height)

    def minimumSizeHint(self):
        hint = super().minimumSizeHint()
        return hint if not self._collapsed else QtCore.QSize(hint.width(), self._height + 2)

    def sizeHint(self):
        hint = super().sizeHint()
        return hint if not self._collapsed else QtCore.QSize(hint.width(), self._height + 2)

    def mousePressEvent(self, event):
        if self._header().contains(event.position().toPoint()):
            self.setFocus(QtCore.Qt.FocusReason.MouseFocusReason)
            self.click()

    def keyPressEvent(self, event):
        if event.key() in (QtCore.Qt.Key.Key_Space, QtCore.Qt.Key.Key_Return):
            self.click()
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event):
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = self._header()
        style = QtWidgets.QStyle
        option.state |= style.StateFlag.State_Raised if self._collapsed else style.StateFlag.State_On
        painter.drawControl(style.ControlElement.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(6, (self._height - 12) // 2, 12, 12)
        primitive = (
            style.PrimitiveElement.PE_IndicatorArrowRight
            if self._collapsed
            else style.PrimitiveElement.PE_IndicatorArrowDown
        )
        painter.drawPrimitive(primitive, arrow)
        painter.setPen(self.property("palette").color(QtGui.QPalette.ColorRole.ButtonText))
        text = self._header().adjusted(24, 0, -4, 0)
        painter.drawText(
            text,
            QtCore.Qt.AlignmentFlag.AlignVCenter | QtCore.Qt.AlignmentFlag.AlignLeft,
            self._text.replace("&&", "&"),
        )
        if self.hasFocus():
            painter.setPen(QtGui.QPen(self.property("palette").color(QtGui.QPalette.ColorRole.Highlight), 1))
            painter.drawRect(self._header().adjusted(1, 1, -2, -2))
        painter.end()


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box whose check mark folds it."""

    def __init__(self, *args):
        super().__init__(*args)
        self._collapsed = False
        self._hidden_by_us = []
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda checked: self._setCollapsed(not checked))

    def _getCollapsed(self):
        return self._collapsed

    def _setCollapsed(self, collapsed):
        if self._collapsed == bool(collapsed):
            return
        self._collapsed = bool(collapsed)
        self.setChecked(not self._collapsed)
        self._apply()

    def _apply(self):
        if self._collapsed:
            for child in self.children():
                if isinstance(child, QtWidgets.QWidget) and not child.isHidden():
                    child.setVisible(False)
                    self._hidden_by_us.append(child)
            self.setMaximumHeight(18)  # the title alone, without the frame's lower edge
        else:
            self.setMaximumHeight(16777215)
            for child in self._hidden_by_us:
                child.setVisible(True)
            self._hidden_by_us.clear()
        self.update()

    def paintEvent(self, event):
        if not self._collapsed:
            super().paintEvent(event)
            return
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionGroupBox()
        self.initStyleOption(option)
        option.subControls &= ~QtWidgets.QStyle.SubControl.SC_GroupBoxFrame
        painter.drawComplexControl(QtWidgets.QStyle.ComplexControl.CC_GroupBox, option)
        painter.end()

    def showEvent(self, event):
        self._apply()
        super().showEvent(event)

    def childEvent(self, event):
        super().childEvent(event)
        if self._collapsed and event.added():
            QtCore.QTimer.singleShot(0, self._apply)

    collapsed = Property(bool, _getCollapsed, _setCollapsed)
    setCollapsed = _setCollapsed


class ctkDoubleSpinBox(QtWidgets.QDoubleSpinBox):
    """A spin box for real numbers."""


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box that show the same real number."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._slider.setRange(0, 1000)
        self._spin = QtWidgets.QDoubleSpinBox()
        self._spin.setKeyboardTracking(False)
        self._spin.setRange(0.0, 99.0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin)
        self.setFocusProxy(self._slider)
        self._tracking = True
        self._value = 0.0
        self._own_change = False
        self._slider.valueChanged.connect(self._sliderMoved)
        self._slider.sliderReleased.connect(lambda: self._sliderMoved(self._slider.property("value"), released=True))
        self._spin.valueChanged.connect(self._spinChanged)
        self._show()

    # The number

    def _getValue(self):
        return self._value

    def _setValue(self, value):
        low, high = self._spin.property("minimum"), self._spin.property("maximum")
        value = round(min(max(float(value), low), high), self._spin.property("decimals"))
        if value == self._value:
            self._show()
            return
        self._value = value
        self._show()
        self.valueChanged.emit(value)

    def _show(self):
        self._own_change = True
        try:
            low, high = self._spin.property("minimum"), self._spin.property("maximum")
            self._slider.setValue(round(1000 * (self._value - low) / (high - low)) if high > low else 0)
            self._spin.setValue(self._value)
        finally:
            self._own_change = False

    def _sliderMoved(self, position, released=False):
        if self._own_change:
            return
        low, high = self._spin.property("minimum"), self._spin.property("maximum")
        value = low + (high - low) * position / 1000
        step = self._spin.property("singleStep")
        if step > 0:
            value = low + round((value - low) / step) * step
        if self._tracking or released or not self._slider.isSliderDown():
            self._setValue(value)
        else:
            self.valueIsChanging.emit(value)

    def _spinChanged(self, value):
        if not self._own_change:
            self._setValue(value)

    # What the .ui file and modules set

    def _rangeChanged(self, low, high):
        self._own_change = True
        try:
            self._spin.setRange(low, high)
            span = high - low
            step = self._spin.property("singleStep")
            self._slider.setPageStep(max(1, round(1000 * 10 * step / span)) if span > 0 else 1)
            self._slider.setSingleStep(max(1, round(1000 * step / span)) if span > 0 else 1)
        finally:
            self._own_change = False
        self._setValue(self._value)

    def _setMinimum(self, low):
        self._rangeChanged(float(low), max(float(low), self._spin.property("maximum")))

    def _setMaximum(self, high):
        self._rangeChanged(min(float(high), self._spin.property("minimum")), float(high))

    def setRange(self, low, high):
        self._rangeChanged(float(low), float(high))

    def _setDecimals(self, decimals):
        self._own_change = True
        try:
            self._spin.setDecimals(decimals)
        finally:
            self._own_change = False
        self._setValue(self._value)

    def _setSingleStep(self, step):
        self._spin.setSingleStep(step)
        self._rangeChanged(self._spin.property("minimum"), self._spin.property("maximum"))

    def _setTracking(self, tracking):
        self._tracking = bool(tracking)

    value = Property(float, _getValue, _setValue)
    minimum = Property(float, lambda self: self._spin.property("minimum"), _setMinimum)
    maximum = Property(float, lambda self: self._spin.property("maximum"), _setMaximum)
    singleStep = Property(float, lambda self: self._spin.property("singleStep"), _setSingleStep)
    pageStep = Property(float, lambda self: 10 * self._spin.property("singleStep"), lambda self, step: None)
    decimals = Property(int, lambda self: self._spin.property("decimals"), _setDecimals)
    suffix = Property(str, lambda self: self._spin.property("suffix"), lambda self, text: self._spin.setSuffix(text))
    prefix = Property(str, lambda self: self._spin.property("prefix"), lambda self, text: self._spin.setPrefix(text))
    tracking = Property(bool, lambda self: self._tracking, _setTracking)
    spinBoxVisible = Property(
        bool, lambda self: not self._spin.isHidden(), lambda self, visible: self._spin.setVisible(visible)
    )

    setValue = _setValue
    setMinimum = _setMinimum
    setMaximum = _setMaximum
    setDecimals = _setDecimals
    setSingleStep = _setSingleStep
    setTracking = _setTracking

    def setSuffix(self, text):
        self._spin.setSuffix(text)

    def slider(self):
        return self._slider

    def spinBox(self):
        return self._spin


class ctkPathLineEdit(QtWidgets.QWidget):
    """A path that is typed or browsed for."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    PQ_SIGNALS = {
        "currentPathChanged(QString)": "currentPathChanged",
        "currentPathChanged(const QString&)": "currentPathChanged",
    }

    # ctkPathLineEdit::Filter
    Dirs = 0x001
    Files = 0x002
    Drives = 0x004
    Readable = 0x010
    Writable = 0x020
    Executable = 0x040
    Hidden = 0x100

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = QtWidgets.QComboBox()
        self._combo.setEditable(True)
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self._combo.setMinimumContentsLength(12)
        self._browse = QtWidgets.QToolButton()
        self._browse.setText("…")
        self._browse.setToolTip("Open a dialog")
        layout.addWidget(self._combo, 1)
        layout.addWidget(self._browse)
        self.setFocusProxy(self._combo)
        self._filters = self.Files
        self._name_filters = []
        self._history_key = ""
        self._combo.editTextChanged.connect(self.currentPathChanged)
        self._browse.clicked.connect(self.browse)

    def browse(self):
        if int(self._filters) & self.Files and int(self._filters) & self.Writable:
            path = QtWidgets.QFileDialog.getSaveFileName(
                self, "Select a file", self._getPath(), ";;".join(self._name_filters)
            )
        elif int(self._filters) & self.Files:
            path = QtWidgets.QFileDialog.getOpenFileName(
                self, "Select a file", self._getPath(), ";;".join(self._name_filters)
            )
        else:
            path = QtWidgets.QFileDialog.getExistingDirectory(self, "Select a folder", self._getPath())
        if path:
            self._setPath(path)

    def _getPath(self):
        return self._combo.property("currentText")

    def _setPath(self, path):
        self._combo.setEditText(str(path))

    def _setFilters(self, filters):
        # .ui files write sets such as "ctkPathLineEdit::Files|ctkPathLineEdit::Readable".
        if isinstance(filters, str):
            value = 0
            for part in filters.split("|"):
                value |= getattr(self, part.strip().split("::")[-1], 0)
            filters = value
        self._filters = int(filters)

    def _setNameFilters(self, filters):
        self._name_filters = list(filters)

    def _setKey(self, key):
        self._history_key = key

    currentPath = Property(str, _getPath, _setPath)
    filters = Property(str, lambda self: str(self._filters), _setFilters)
    nameFilters = Property("QStringList", lambda self: self._name_filters, _setNameFilters)
    settingKey = Property(str, lambda self: self._history_key, _setKey)
    showHistoryButton = Property(bool, lambda self: False, lambda self, value: None)
    showBrowseButton = Property(
        bool, lambda self: not self._browse.isHidden(), lambda self, visible: self._browse.setVisible(visible)
    )

    setCurrentPath = _setPath
    setFilters = _setFilters
    setNameFilters = _setNameFilters

    def addCurrentPathToHistory(self):
        path = self._getPath()
        if path and self._combo.findText(path) < 0:
            self._combo.addItem(path)

    def isValid(self):
        return os.path.exists(self._getPath())

    def clear(self):
        self._setPath("")


class ctkDirectoryButton(QtWidgets.QWidget):
    """A plain widget around a button that shows a folder and asks for another one.

    As long as nothing was set, the folder is "."; nothing becomes "." again, and setting the working directory itself
    is no change.
    """

    directoryChanged = Signal(str)
    directorySelected = Signal(str)
    PQ_SIGNALS = {"directoryChanged(QString)": "directoryChanged", "directorySelected(QString)": "directorySelected"}

    def __init__(self, *args):
        super().__init__(*[a for a in args if isinstance(a, QtWidgets.QWidget)][:1])
        self._directory = args[0] if args and isinstance(args[0], str) else "."
        self._caption = ""
        self._button = QtWidgets.QPushButton(self)
        self._button.setIcon(self.style().standardIcon(QtWidgets.QStyle.StandardPixmap.SP_DirIcon))
        self._button.clicked.connect(lambda checked=False: self.browse())
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._showDirectory()

    def browse(self):
        folder = QtWidgets.QFileDialog.getExistingDirectory(self, self._caption or "Select a folder", self._directory)
        if folder:
            self._setDirectory(folder)
        return folder

    def _getDirectory(self):
        return self._directory

    def _setDirectory(self, folder):
        folder = os.path.abspath(str(folder) or ".")
        changed = folder != os.path.abspath(self._directory)
        if changed:
            self._directory = folder
            self._showDirectory()
        self.directorySelected.emit(folder)
        if changed:
            self.directoryChanged.emit(folder)

    def _showDirectory(self):
        metrics = QtGui.QFontMetrics(self.property("font"))
        shown = os.path.abspath(self._directory)
        self._button.setText(metrics.elidedText(shown, QtCore.Qt.TextElideMode.ElideMiddle, 260))

    def _setCaption(self, caption):
        self._caption = caption

    directory = Property(str, _getDirectory, _setDirectory)
    caption = Property(str, lambda self: self._caption, _setCaption)
    acceptMode = Property(str, lambda self: "", lambda self, value: None)
    options = Property(str, lambda self: "", lambda self, value: None)
    setDirectory = _setDirectory


class ctkCheckablePushButton(QtWidgets.QPushButton):
    """A button that stays down."""

    def __init__(self, *args):
        super().__init__(*args)
        self.setCheckable(True)


class ctkFittedTextBrowser(QtWidgets.QTextBrowser):
    """A text that is as high as it needs."""

    collapsible = Property(bool, lambda self: False, lambda self, value: None)

    def sizeHint(self):
        hint = super().sizeHint()
        return QtCore.QSize(hint.width(), int(self.document().size().height()) + 8)


class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box that can be told to stay away; here it always comes."""

    def _getKey(self):
        return getattr(self, "_key", "")

    def _setKey(self, key):
        self._key = key

    dontShowAgainSettingsKey = Property(str, _getKey, _setKey)
    dontShowAgainVisible = Property(bool, lambda self: bool(self._getKey()), lambda self, value: None)


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box with a text for no choice."""

    defaultText = Property(
        str, lambda self: self.property("placeholderText"), lambda self, t: self.setPlaceholderText(t)
    )


class ctkRangeWidget(QtWidgets.QWidget):
    """Two numbers, the lower and the upper end of a range."""

    valuesChanged = Signal(float, float)

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._low, self._high = QtWidgets.QDoubleSpinBox(), QtWidgets.QDoubleSpinBox()
        for box in (self._low, self._high):
            box.setRange(0, 99)
            box.valueChanged.connect(lambda value: self.valuesChanged.emit(*self._values()))
            layout.addWidget(box)
        self._high.setValue(99)

    def _values(self):
        return self._low.property("value"), self._high.property("value")

    def setValues(self, low, high):
        self._low.setValue(low)
        self._high.setValue(high)

    def setRange(self, low, high):
        self._low.setRange(low, high)
        self._high.setRange(low, high)

    minimumValue = Property(float, lambda self: self._values()[0], lambda self, v: self._low.setValue(v))
    maximumValue = Property(float, lambda self: self._values()[1], lambda self, v: self._high.setValue(v))
    minimum = Property(
        float, lambda s: s._low.property("minimum"), lambda s, v: s.setRange(v, s._high.property("maximum"))
    )
    maximum = Property(
        float, lambda s: s._high.property("maximum"), lambda s, v: s.setRange(s._low.property("minimum"), v)
    )
    singleStep = Property(
        float, lambda s: s._low.property("singleStep"), lambda s, v: (s._low.setSingleStep(v), s._high.setSingleStep(v))
    )
    decimals = Property(
        int, lambda s: s._low.property("decimals"), lambda s, v: (s._low.setDecimals(v), s._high.setDecimals(v))
    )
    suffix = Property(
        str, lambda s: s._low.property("suffix"), lambda s, v: (s._low.setSuffix(v), s._high.setSuffix(v))
    )


CLASSES = (
    ctkCheckablePushButton,
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkComboBox,
    ctkDirectoryButton,
    ctkDoubleSpinBox,
    ctkFittedTextBrowser,
    ctkMessageBox,
    ctkPathLineEdit,
    ctkRangeWidget,
    ctkSliderWidget,
)
