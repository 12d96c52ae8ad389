"""Presets without a deformation give linear transform nodes that are the engine's map."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
from modules import quick_engine
from modules import scene_builders as build

QUICK_ENGINE = Path(__file__).with_name("quick_engine.py")


@pytest.fixture
def logic(scene):
    from SAMConvexRegistrationLib.logic import SAMConvexRegistrationLogic

    logic = SAMConvexRegistrationLogic()
    logic.engineCommand = lambda arguments: [sys.executable, str(QUICK_ENGINE), "good", *map(str, arguments)]
    return logic


@pytest.fixture
def pair(scene):
    """A fixed image under an oblique parent, and a moving image."""
    array = build.smooth_array((20, 22, 24))
    fixed = build.volume("Fixed", array, build.centered(build.oblique(), array.shape))
    build.linear_parent(fixed, build.translation(-7, 3, 2) @ build.rotation(10, 0))
    return fixed, build.volume("Moving", array, build.centered(build.oblique((2.2, 2.2, 2.8), -10), array.shape))


def through(node, points):
    """World RAS points from parent through a transform node."""
    from SAMConvexLib import nodes

    return nodes.transformPoints(node.GetTransformFromParent(), points)


def of_the_engine(points):
    """The same by the transform that the engine wrote, LPS."""
    forward, _backward = quick_engine.linear_transforms()
    flip = np.array([-1.0, -1.0, 1.0])
    return np.array([forward.TransformPoint((point * flip).tolist()) for point in points]) * flip


@pytest.mark.parametrize("preset", ["rigid", "affine"])
def test_the_result_is_a_linear_node_and_the_engines_map(logic, pair, preset):
    points = np.random.default_rng(0).uniform(-60, 60, (20, 3))
    markups = build.markups("M", points)
    inverse = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    result = logic.registerVolumes(*pair, preset=preset, movingMarkups=markups, outputInverse=inverse)
    node = result.transformNode
    assert node.GetClassName() == "vtkMRMLLinearTransformNode" and node.IsLinear()
    assert np.allclose(through(node, points), of_the_engine(points), atol=1e-9)
    assert np.allclose(through(inverse, of_the_engine(points)), points, atol=1e-9)
    carried = slicer.util.arrayFromMarkupsControlPoints(result.outputs.markups, world=True)
    assert np.allclose(through(node, carried), points, atol=1e-9)


def test_a_deformation_gets_a_node_of_its_own_instead_of_a_linear_one(logic, pair):
    linear = logic.registerVolumes(*pair, preset="affine").transformNode
    result = logic.registerVolumes(*pair, outputTransform=linear).transformNode
    assert result is not linear and not result.IsLinear() and linear.IsLinear()
    again = logic.registerVolumes(*pair, preset="affine", outputTransform=result).transformNode
    assert again is result and again.IsLinear()
    points = np.random.default_rng(0).uniform(-60, 60, (20, 3))
    assert np.allclose(through(again, points), of_the_engine(points), atol=1e-9)


def test_the_preview_shows_it_without_places_of_deformation(logic, pair):
    from SAMConvexRegistrationLib.preview import PreviewMode, RegistrationPreview

    change = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    transform = logic.registerVolumes(*pair, preset="rigid", outputJacobian=change).transformNode
    assert np.allclose(slicer.util.arrayFromVolume(change), 1.0, atol=1e-4)
    preview = RegistrationPreview(*pair, transform)
    preview.show(PreviewMode.BLEND)
    assert not preview.deforms and preview.worstPlaces() == []
    shown = build.resample_by_mrml(preview.movingStandIn, pair[0], -1)
    attached = pair[1]
    attached.SetAndObserveTransformNodeID(transform.GetID())
    expected = build.resample_by_mrml(attached, pair[0], -1)
    assert np.abs(shown - expected).max() < 0.5 and (expected > 0).sum() > 1000
    preview.revert()
