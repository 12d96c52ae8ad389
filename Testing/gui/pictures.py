"""Photographs of both modules: a registration before, during and after a run with every preview mode, and landmarks.

    make pictures                 all of them, into Resources/Screenshots, with measured figures on the terminal

The pair is the demo's (two patients' chest CTs that Python packages ship); offline it is the demo's phantom.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from camera import REPOSITORY, Camera, coarser

for folder in ("Testing", "SAMConvexRegistration", "SAMLandmark"):
    sys.path.insert(0, str(REPOSITORY / folder))

from harness import load_module, start, wait_until  # noqa: E402

# Label values of the atlas that comes with the demo's moving CT (TotalSegmentator's list).
STRUCTURES = {
    "Liver": (5, (0.87, 0.51, 0.40)),
    "Heart": (51, (0.90, 0.25, 0.25)),
    "Aorta": (52, (1.0, 0.55, 0.1)),
    "Left lung": (None, (0.35, 0.75, 1.0)),
    "Right lung": (None, (0.35, 1.0, 0.75)),
}
LATENCY_STEP_S = 0.002


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default=REPOSITORY / "Resources" / "Screenshots", type=Path)
    parser.add_argument("--preset", default="ct-inter-patient")
    parser.add_argument("--offline", action="store_true", help="the phantom instead of the real pair")
    parser.add_argument(
        "--spacing", type=float, default=2.0, help="average the images to this many mm first (default: 2)"
    )
    parser.add_argument(
        "--only", choices=("registration", "landmarks", "verdict"), help="the pictures of one module, or of the verdict"
    )
    options = parser.parse_args()

    app = start()
    from harness.window import MainWindow

    window = MainWindow.instance()
    window.resize(1500, 1000)
    window.show()
    camera = Camera(window, options.output)
    load_module(REPOSITORY / "SAMConvexRegistration" / "SAMConvexRegistration.py")
    if options.only == "verdict":
        verdicts(options.output)
        return 0
    if options.only != "landmarks":
        registration(app, window, camera, options)
    if options.only != "registration":
        import landmark_pictures

        landmark_pictures.take_all(window, camera, options.offline, options.spacing)
    return 0


def registration(app, window, camera, options):
    """The registration module before, during and after a run, and every preview mode."""
    import slicer

    slicer.util.selectModule("SAMConvexRegistration")
    app.processEvents()
    widget = slicer.modules.SAMConvexRegistrationWidget
    nodes = make_nodes(options.offline, options.spacing)
    fill_panel(widget, nodes, options.preset)
    slicer.util.setSliceViewerLayers(background=nodes["fixed"], foreground=nodes["moving"], foregroundOpacity=0.5)
    window.fit()
    camera.take("registration-before")
    print_cancel_time(widget)
    run(widget, camera)
    after(widget, camera, nodes)
    print_agreement(widget, nodes)
    widget.cleanup()


def verdicts(folder):
    """The quality section for a published case of each level (of Testing/benchmarks/studies/verdict.py)."""
    import json

    import slicer
    from harness.pictures import photograph, settle
    from samconvex.report.verdict import verdict
    from SAMConvexRegistrationLib.previewpanel import showReport

    slicer.util.selectModule("SAMConvexRegistration")
    ui = slicer.modules.SAMConvexRegistrationWidget.ui
    ui.qualityButton.collapsed = False
    published = REPOSITORY / "Testing" / "benchmarks" / "results" / "verdict.json"
    cases = json.loads(published.read_text(encoding="utf-8"))["cases"]
    for kind in ("same patient", "lesion resected", "other body part"):
        case = next(case for case in cases if case["kind"] == kind)
        judged = verdict(case["evidence"], same_patient=case["same_patient"])
        showReport(
            ui,
            {
                "folding_percent": case["evidence"]["folding_percent"],
                "overlap_percent": case["evidence"]["covered_percent"],
                "verdict": judged,
            },
        )
        settle(0.3)
        photograph(ui.qualityButton, folder / f"verdict-{judged['level'].replace(' ', '-')}.png", scale=0.8)
        print(f"{judged['level']}: {' '.join(judged['reasons'])}", flush=True)
    slicer.modules.SAMConvexRegistrationWidget.cleanup()


def make_nodes(offline, spacing):
    """Volume and segmentation nodes of the pair."""
    import numpy as np
    import SimpleITK as sitk
    import slicer
    from samconvex.cli.demo import obtain_pair
    from SAMConvexLib import nodes, segments

    pair = coarser(obtain_pair(offline, print), spacing)
    made = {}
    for name, volume, title in (("fixed", pair.fixed, "Patient A"), ("moving", pair.moving, "Patient B")):
        image = volume.to_sitk()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", title)
        nodes.fillVolume(node, sitk.GetArrayFromImage(image), nodes.imageToRas(image))
        node.GetDisplayNode().SetAutoWindowLevel(False)
        node.GetDisplayNode().SetWindowLevel(1400, -300)
        made[name] = node
    lungs = [sitk.GetArrayFromImage(labels.to_sitk()) for labels in pair.lungs]
    anatomy = sitk.GetArrayFromImage(pair.anatomy.to_sitk())
    for side, lung in (("fixed", lungs[0]), ("moving", lungs[1])):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", made[side].GetName() + " organs")
        made[side + "Segmentation"] = node
        node.SetReferenceImageGeometryParameterFromVolumeNode(made[side])
        for name, (value, color) in STRUCTURES.items():
            if value is None:
                mask = lung == (2 if name == "Left lung" else 1)
            else:
                mask = anatomy == value if side == "moving" and anatomy.shape == lung.shape else np.zeros(1, bool)
            if not mask.any():
                continue
            segment = slicer.vtkSegment()
            segment.SetName(name)
            segment.SetColor(*color)
            labels = segments.orientedLabels(mask.astype(np.int16), nodes.ijkToRas(made[side]))
            segment.AddRepresentation(segments.BINARY, labels)
            node.GetSegmentation().AddSegment(segment, name)
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetVisibility(False)
    return made


def fill_panel(widget, nodes, preset):
    ui = widget.ui
    ui.fixedSelector.setCurrentNode(nodes["fixed"])
    ui.movingSelector.setCurrentNode(nodes["moving"])
    ui.movingSegmentationSelector.setCurrentNode(nodes["movingSegmentation"])
    ui.fixedSegmentationSelector.setCurrentNode(nodes["fixedSegmentation"])
    widget.presetMenu.choose("built-in:" + preset)
    ui.errorCheckBox.checked = True
    wait_until(lambda: ui.forecastLabel.text != "", 120)


def print_cancel_time(widget):
    """Start, wait until the engine computes, cancel."""
    widget.ui.applyButton.click()
    wait_until(lambda: widget.job.progress.fraction > 0.02 or not widget.isRunning, 300)
    begin = time.monotonic()
    widget.ui.applyButton.click()
    wait_until(lambda: not widget.isRunning, 10)
    print(f"Cancel answered after {time.monotonic() - begin:.2f} s: {widget.ui.statusLabel.text}", flush=True)


def run(widget, camera):
    """Apply; a picture on the way; the longest pause of the event loop, the picture's own time left out."""
    from PySide6 import QtCore

    widget.ui.applyButton.click()
    pictured, values, pauses, begin = False, [], [], time.monotonic()
    last = time.monotonic()
    while widget.isRunning:
        QtCore.QCoreApplication.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, 10)
        now = time.monotonic()
        pauses.append((now - last, widget.job.state.value))
        last = now
        value = widget.ui.progressBar.value
        if not values or value != values[-1]:
            values.append(value)
        if not pictured and value > 400:
            camera.take("registration-running", widget.ui.logButton)
            pictured, last = True, time.monotonic()
        time.sleep(LATENCY_STEP_S)
    if widget.job.result is None:
        raise SystemExit(widget.ui.statusLabel.text)
    print(f"Run: {time.monotonic() - begin:.0f} s; progress bar: {len(values)} values, {values[0]} to {values[-1]}")
    for state in ("preparing", "running", "importing", "done"):
        chosen = [pause for pause, where in pauses if where == state]
        if chosen:
            print(f"Longest pause of the user interface while {state}: {1000 * max(chosen):.0f} ms")


def after(widget, camera, nodes):
    """The result and every preview mode."""
    import slicer
    from harness.pictures import settle
    from SAMConvexRegistrationLib.preview import PreviewMode

    ui = widget.ui
    ui.revertButton.click()
    for name in ("inputsButton", "settingsButton", "outputsButton"):
        getattr(ui, name).collapsed = True
    slicer.util.setSliceViewerLayers(background=nodes["fixed"], foreground=None)
    for mode in PreviewMode:
        ui.previewModeComboBox.setCurrentIndex(ui.previewModeComboBox.findData(mode.value))
        if mode is PreviewMode.FLICKER:
            widget.previewPanel._flickerTimer.stop()
        settle(0.5)
        camera.take(f"preview-{mode.value}", ui.attachCheckBox)
    ui.previewModeComboBox.setCurrentIndex(ui.previewModeComboBox.findData("blend"))
    for percent in (0, 50, 100):
        ui.deformationSlider.value = percent
        settle(0.3)
        camera.take(f"preview-deformation-{percent:03d}", ui.attachCheckBox)
    ui.gridCheckBox.checked = True
    ui.blendSlider.value = 0
    camera.take("preview-grid", ui.attachCheckBox)
    ui.gridCheckBox.checked = False
    ui.worstButton.click()
    camera.take("preview-worst-place", ui.attachCheckBox)
    print(f"Worst place: {ui.worstLabel.text}")
    ui.revertButton.click()
    for row in range(ui.qualityTable.rowCount):
        print("  ".join(ui.qualityTable.item(row, column).text() for column in range(4)))
    parameters = widget.parameters()
    parameters.outputSegmentation.GetDisplayNode().SetVisibility(True)
    parameters.outputSegmentation.GetDisplayNode().SetVisibility2DFill(False)
    slicer.util.setSliceViewerLayers(
        background=nodes["fixed"], foreground=parameters.outputVolume, foregroundOpacity=0.5
    )
    ui.previewButton.collapsed = True
    camera.take("registration-after", ui.qualityButton)


def print_agreement(widget, nodes):
    """The scene's own application of the transform against the engine's warped volume."""
    import numpy as np
    import slicer
    from modules import scene_builders
    from SAMConvexRegistrationLib import attachment

    parameters = widget.parameters()
    engine = slicer.util.arrayFromVolume(parameters.outputVolume)
    attachment.attach(nodes["moving"], parameters.outputTransform)
    scene = scene_builders.resample_by_mrml(nodes["moving"], nodes["fixed"], -1024)
    attachment.detach(nodes["moving"])
    both = (engine > -1000) & (scene > -1000)
    difference = np.abs(np.rint(scene) - engine)[both]
    print(
        f"Transform applied by MRML against the engine's volume: mean {difference.mean():.4f} HU, "
        f"99.9 % within {np.percentile(difference, 99.9):.0f} HU, {both.sum()} voxels"
    )


if __name__ == "__main__":
    sys.exit(main())
