"""A registration of two real CTs, clicked through in the window and photographed: ``python -m harness.tour OUTDIR``.

Writes one picture of the module before, during and after the run, one of every preview mode, of the deformation grid
and of the batch tab, and prints how long the user interface stood still at worst. The images are those of
``samconvex demo`` unless files are given.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from .__main__ import REPOSITORY


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.tour", description=__doc__)
    parser.add_argument("output", metavar="OUTDIR", help="folder for the pictures")
    parser.add_argument("--fixed", metavar="FILE", help="fixed image")
    parser.add_argument("--moving", metavar="FILE", help="moving image")
    parser.add_argument("--moving-labels", metavar="FILE", help="label map of the moving image")
    parser.add_argument("--fixed-labels", metavar="FILE", help="label map of the fixed image, to compute overlaps")
    parser.add_argument("--preset", default="ct-inter-patient", help="built-in preset (default: %(default)s)")
    parser.add_argument("--size", default="1500x1000", help="window size (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="scaling of texts and widgets, such as 1.25")
    parser.add_argument(
        "--limit", type=float, default=1800, metavar="SECONDS", help="longest run (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.scale != 1.0:
        os.environ["QT_SCALE_FACTOR"] = str(options.scale)
    sys.path.insert(0, str(REPOSITORY / "SAMConvexRegistration"))

    from .core import start

    try:
        start()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    Tour(options).run()
    return 0


class Tour:
    """The steps, in order; every picture is numbered."""

    def __init__(self, options):
        from .modules import load_module, module_file
        from .window import MainWindow

        self.options = options
        self.count = 0
        self.window = MainWindow.instance()
        self.window.resize(*(int(value) for value in options.size.split("x")))
        self.window.show()
        self.module = load_module(module_file("SAMConvexRegistration", REPOSITORY))

    def run(self):
        import slicer

        slicer.util.selectModule("SAMConvexRegistration")
        self.widget = self.module.widgetRepresentation().self()
        self.ui = self.widget.ui
        self.load()
        self.before()
        self.register()
        self.preview()
        self.batch()

    # Steps

    def load(self):
        import slicer

        options = self.options
        if options.fixed and options.moving:
            self.fixed = slicer.util.loadVolume(options.fixed, {"name": "Fixed CT"})
            self.moving = slicer.util.loadVolume(options.moving, {"name": "Moving CT"})
            self.fixed_organs = self._organs("Fixed organs", options.fixed_labels, {})
            self.moving_organs = self._organs("Organs", options.moving_labels, {})
        else:
            self._load_demo_pair()
        for node in (self.fixed, self.moving):
            display = node.GetDisplayNode()
            display.AutoWindowLevelOff()
            display.SetWindowLevelMinMax(-400, 400)

    def before(self):
        import slicer

        self.ui.fixedSelector.setCurrentNode(self.fixed)
        self.ui.movingSelector.setCurrentNode(self.moving)
        self.ui.movingSegmentationSelector.setCurrentNode(self.moving_organs)
        self.ui.fixedSegmentationSelector.setCurrentNode(self.fixed_organs)
        preset = self.ui.presetComboBox
        texts = [str(preset.itemData(i)) for i in range(preset.count)]
        chosen = next((i for i, text in enumerate(texts) if text.endswith(self.options.preset)), None)
        if chosen is not None:
            preset.setCurrentIndex(chosen)
            preset.activated.emit(chosen)  # as a click does
        for organs in (self.fixed_organs, self.moving_organs):
            if organs is not None:
                organs.GetDisplayNode().SetVisibility(organs is self.moving_organs)
        slicer.util.setSliceViewerLayers(
            background=self.fixed, foreground=self.moving, foregroundOpacity=0.5, label=None, fit=True
        )
        self._fit()
        self.photograph("before")

    def register(self):
        from .latency import StallWatch
        from .waiting import wait_until

        begin = time.monotonic()
        self.ui.applyButton.click()
        if not self.widget.isRunning:
            raise SystemExit(f"The registration did not start: {self.ui.statusLabel.text}")
        with StallWatch() as watch:
            wait_until(
                lambda: self.widget.job.progress.fraction > 0.45 or not self.widget.isRunning, self.options.limit
            )
        if self.widget.isRunning:
            self.window.scrollTo(self.ui.statusLabel)
            self.photograph("during")
        with StallWatch() as rest:
            wait_until(lambda: not self.widget.isRunning, self.options.limit)
        print(f"Registration: {time.monotonic() - begin:.1f} s. {self.ui.statusLabel.text}")
        print(f"Longest stall of the user interface: {1000 * watch.worst:.0f} ms while running,")
        print(f"  {1000 * rest.worst:.0f} ms until the results were in the scene")
        if self.moving_organs is not None:
            self.moving_organs.GetDisplayNode().SetVisibility(False)
        self.window.scrollTo(self.ui.qualityTable)
        self.photograph("after")

    def preview(self):
        self._only_open("previewButton")
        modes = self.ui.previewModeComboBox
        for index in range(modes.count):
            if not modes.itemData(index):
                continue
            modes.setCurrentIndex(index)
            self._settle(0.4)
            self.photograph("preview-" + str(modes.itemData(index)))
        modes.setCurrentIndex(modes.findData("blend"))
        self.ui.gridCheckBox.checked = True
        self._settle(0.4)
        self.photograph("preview-grid")
        self.ui.gridCheckBox.checked = False
        self.ui.worstButton.click()
        self._settle(0.4)
        self.photograph("preview-worst-place")
        self.ui.revertButton.click()
        self._settle(0.2)
        self.photograph("reverted")

    def batch(self):
        tabs = self.window.findChildren("QTabWidget")
        if tabs:
            tabs[0].currentIndex = 1
            self.photograph("batch")

    # Help

    def photograph(self, name):
        from .pictures import photograph

        self.count += 1
        path = Path(self.options.output) / f"{self.count:02d}-{name}.png"
        photograph(self.window, path)
        print(path)

    def _settle(self, seconds):
        from .pictures import settle

        settle(seconds)

    def _fit(self):
        from .pictures import settle

        settle()
        self.window.fit()

    def _only_open(self, name):
        """Fold every other section, so that this one is in the picture."""
        for section in (
            "inputsButton",
            "settingsButton",
            "outputsButton",
            "advancedButton",
            "qualityButton",
            "logButton",
        ):
            if hasattr(self.ui, section):
                getattr(self.ui, section).collapsed = True
        getattr(self.ui, name).collapsed = False
        self.window.scrollTo(getattr(self.ui, name))

    def _load_demo_pair(self):
        import slicer
        from samconvex import write_volume
        from samconvex.demo import obtain_pair
        from samconvex.demo_data import LUNG_NAMES

        pair = obtain_pair(False, print)
        folder = Path(slicer.app.temporaryPath)
        paths = [
            folder / name for name in ("fixed.nii.gz", "moving.nii.gz", "fixed_lungs.nii.gz", "moving_lungs.nii.gz")
        ]
        for volume, path in zip((pair.fixed, pair.moving, *pair.lungs), paths, strict=True):
            write_volume(volume, path)
        self.fixed = slicer.util.loadVolume(str(paths[0]), {"name": "Fixed CT"})
        self.moving = slicer.util.loadVolume(str(paths[1]), {"name": "Moving CT"})
        self.fixed_organs = self._organs("Fixed lungs", paths[2], LUNG_NAMES)
        self.moving_organs = self._organs("Lungs", paths[3], LUNG_NAMES)

    def _organs(self, name, path, names):
        """A segmentation from a label map file, one segment per label."""
        import slicer

        if not path:
            return None
        labels = slicer.util.loadLabelVolume(str(path), {"show": False})
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, node)
        values = [v for v in sorted({int(v) for v in set(slicer.util.arrayFromVolume(labels).ravel().tolist())}) if v]
        colors = ((0.95, 0.65, 0.2), (0.3, 0.75, 0.95), (0.5, 0.85, 0.4), (0.9, 0.4, 0.6))
        segmentation = node.GetSegmentation()
        for index in range(segmentation.GetNumberOfSegments()):
            segment = segmentation.GetNthSegment(index)
            if names:
                segment.SetName(names.get(values[index], segment.GetName()))
            segment.SetColor(*colors[index % len(colors)])
        node.GetDisplayNode().SetOpacity2DFill(0.15)
        slicer.mrmlScene.RemoveNode(labels)
        return node


if __name__ == "__main__":
    sys.exit(main())
