"""Presets: the engine's, the user's, the scene's; batch lists; dependencies; sample data."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
from modules import scene_builders as build

ENGINE = Path(__file__).with_name("quick_engine.py")


@pytest.fixture
def presets(scene):
    from SAMConvexRegistrationLib import presets

    return presets


@pytest.fixture
def choices(scene):
    from SAMConvexRegistrationLib import settings

    return settings


@pytest.fixture
def custom(choices):
    return choices.RegistrationSettings(
        preset="mr-ct", strength=choices.Strength.STIFF, quality=choices.Quality.BEST, threads=3, maximumMemoryGib=4.5
    )


def test_the_list_names_the_engines_presets(presets):
    from samconvex.settings.presets import PRESETS

    assert list(presets.builtInPresets()) == list(PRESETS)


def test_every_choice_is_one_the_engine_accepts(presets, choices):
    import argparse

    from samconvex.cli import register as register_command
    from SAMConvexLib.choices import Device

    parser = argparse.ArgumentParser()
    register_command.add_arguments(parser)
    for strength in choices.Strength:
        for quality in choices.Quality:
            for affine in choices.Affine:
                for refinement in choices.Refinement:
                    for device in Device:
                        settings = choices.RegistrationSettings(
                            "fast-preview",
                            strength,
                            quality,
                            device,
                            affine,
                            refinement,
                            2,
                            3.5,
                            7,
                            choices.Protection.VOLUME,
                            True,
                        )
                        parser.parse_args(["f", "m", "-o", "out", *settings.engineArguments()])


def test_every_choice_of_features_is_one_the_engine_knows(presets, choices):
    import samconvex
    import torch
    from samconvex.settings.registration import Level, Settings
    from samconvex.space.grid import Grid
    from samconvex.space.volume import Volume

    # A body in air, as every network expects it.
    voxels = torch.full((1, 1, 24, 24, 24), -1000.0)
    voxels[..., 4:20, 4:20, 4:20] = 40.0
    body = Volume(voxels, Grid((24, 24, 24), (8.0, 8.0, 8.0)))
    once = Settings("once", "", affine="none", levels=(Level(24.0, 1),), working_spacing=8.0, field_spacing=24.0)
    words = {word for features in choices.Features if features.value for word in features.value.split("+")}
    assert words >= {"mind", "dns", "featcnn", "sam"}
    # All in one run: the engine refuses a name it does not know.
    samconvex.register(body, body, preset=once, features="+".join(sorted(words)), device="cpu")


def test_strength_and_quality_change_the_engines_settings():
    from samconvex.settings.presets import PRESETS
    from samconvex.settings.strength import adjusted

    plain = PRESETS["ct-lung-breathing"]
    assert adjusted(plain) == plain
    stiff, flexible = adjusted(plain, "stiff"), adjusted(plain, "flexible")
    assert stiff.coupling > plain.coupling > flexible.coupling
    assert stiff.box_passes > plain.box_passes > flexible.box_passes >= 1
    assert stiff.adam.regularization > plain.adam.regularization > flexible.adam.regularization
    # Never without a filter.
    assert adjusted(PRESETS["ct-inter-patient"], "flexible").box_passes == PRESETS["ct-inter-patient"].box_passes == 1
    assert adjusted(plain, quality="fast").adam.iterations < plain.adam.iterations
    best = adjusted(plain, quality="best")
    assert best.adam.iterations > plain.adam.iterations and best.symmetric


def test_the_best_of_different_patients_is_what_was_measured_to_be_more_exact():
    from dataclasses import replace

    from samconvex.registration.options import Options
    from samconvex.settings.presets import PRESETS
    from samconvex.settings.strength import adjusted

    plain = PRESETS["ct-inter-patient"]
    best = Options(quality="best").settings()
    # Both directions cost 1.6 points of Dice on head and neck (RESULTS.md).
    assert not best.symmetric and best.refine == "adam" and best.name == plain.name
    assert [level.spacing for level in best.levels] == [level.spacing for level in plain.levels]
    assert all("sam-fine" in level.features for level in best.levels[3:]) and "sam-fine" in best.refined_by[0]
    assert not any("sam-fine" in level.features for level in plain.levels)
    # What else was asked for holds.
    assert Options(quality="best", refine="none").settings().refine == "none"
    assert Options(quality="best", strength="stiff").settings().adam.regularization == 4 * plain.adam.regularization
    mine = replace(plain, levels=plain.levels[:2])
    assert len(adjusted(mine, quality="best").levels) == 2 and adjusted(mine, quality="best").symmetric


def test_a_preset_of_the_user_is_kept_and_deleted(presets, custom, tmp_path):
    presets.saveUserPreset("My knees / left", custom, tmp_path)
    assert presets.userPresets(tmp_path) == {"My knees / left": custom}
    (tmp_path / "broken.json").write_text("{")
    assert list(presets.userPresets(tmp_path)) == ["My knees / left"]
    presets.deleteUserPreset("My knees / left", tmp_path)
    assert presets.userPresets(tmp_path) == {}


def test_a_preset_in_the_scene_travels_with_its_file(presets, custom, tmp_path):
    presets.saveScenePreset("Study A", custom, slicer.mrmlScene)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    assert presets.scenePresets(slicer.mrmlScene) == {}
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert presets.scenePresets(slicer.mrmlScene) == {"Study A": custom}
    presets.deleteScenePreset("Study A", slicer.mrmlScene)
    assert presets.scenePresets(slicer.mrmlScene) == {}


def test_what_was_saved_before_features_could_be_chosen_compares_what_its_preset_does(
    presets, choices, custom, load_scripted_module, repository, tmp_path
):
    earlier = custom.toDictionary()
    del earlier["features"]
    node = presets.saveScenePreset("Earlier", custom, slicer.mrmlScene)
    node.SetText(json.dumps(earlier))
    (tmp_path / "earlier.json").write_text(json.dumps({"name": "Earlier", "settings": earlier}))
    assert presets.scenePresets(slicer.mrmlScene) == presets.userPresets(tmp_path) == {"Earlier": custom}
    assert "--features" not in custom.engineArguments()

    load_scripted_module(repository / "SAMConvexRegistration" / "SAMConvexRegistration.py", enter=False)
    from SAMConvexRegistration import SAMConvexRegistrationParameterNode

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "Earlier")
    node.SetParameter("strength", "STIFF")
    parameters = SAMConvexRegistrationParameterNode(node)
    assert parameters.settings() == choices.RegistrationSettings(strength=choices.Strength.STIFF)


def test_strengths_saved_by_their_earlier_names_are_understood(choices):
    stored = choices.RegistrationSettings.fromDictionary({"strength": "gentle"})
    assert stored.strength is choices.Strength.STIFF and choices.Strength["STRONG"] is choices.Strength.FLEXIBLE


def test_a_preset_of_an_unknown_version_is_skipped(presets, choices):
    node = presets.saveScenePreset("Future", choices.RegistrationSettings(), slicer.mrmlScene)
    node.SetText(json.dumps({"strength": "telepathic"}))
    assert presets.scenePresets(slicer.mrmlScene) == {}


# --- batch ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def logic(load_scripted_module, repository):
    load_scripted_module(repository / "SAMConvexRegistration" / "SAMConvexRegistration.py", enter=False)
    logic = slicer.util.getModuleLogic("SAMConvexRegistration")

    def command(arguments):
        behavior = "input" if any("broken" in str(argument) for argument in arguments) else "done"
        return [sys.executable, str(ENGINE), behavior, *[str(argument) for argument in arguments]]

    logic.engineCommand = command
    return logic


def write_image(path):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(build.box_array())
    image.SetSpacing((3.0, 3.0, 3.0))
    sitk.WriteImage(image, str(path))


@pytest.fixture
def pairs(tmp_path):
    """A table of four pairs: one to look at, one that fails, two that are good."""
    for name in ("a", "check", "broken"):
        write_image(tmp_path / f"{name}.nii.gz")
    rows = ["name,fixed,moving", "first,a.nii.gz,a.nii.gz", "look,a.nii.gz,check.nii.gz"]
    rows += ["bad,a.nii.gz,broken.nii.gz", "last,a.nii.gz,a.nii.gz"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "pairs.csv"


@pytest.fixture
def quick(logic):
    """The logic with a stand-in that always works."""
    logic.engineCommand = lambda arguments: [sys.executable, str(ENGINE), "done", *map(str, arguments)]
    return logic


def words_of(folder):
    return json.loads((folder / "cohort.json").read_text())["arguments"]


def test_a_table_of_files_is_the_engines_cohort_and_the_worst_rows_come_first(quick, choices, pairs, tmp_path):
    run = quick.cohort(pairs, tmp_path / "out", choices.RegistrationSettings())
    items = run.wait()
    assert run.state.value == "done" and run.fraction == 1.0 and run.currentJob is None
    assert [(item.name, item.state.value) for item in items] == [
        ("bad", "failed"),
        ("look", "done"),
        ("last", "done"),
        ("first", "done"),
    ]
    assert items[0].message == "The image is constant." and items[0].report is None
    assert items[1].report["verdict"] == {"level": "check", "reasons": ["Bones do not lie on each other.", "Look."]}
    assert items[1].message == "Noted." and items[2].report["expected_error_mm"] == {"median": 4.0}


def test_the_chosen_settings_and_workers_reach_the_cohort(quick, choices, pairs, tmp_path):
    out = tmp_path / "out"
    settings = choices.RegistrationSettings("fast-preview", features=choices.Features.DNS, symmetric=True, threads=2)
    quick.cohort(pairs, out, settings, workers=3).wait()
    words = words_of(out)
    given = {words[place + 1] for place, word in enumerate(words) if word == "--set"}
    # The engine divides the cores among the workers.
    assert given == {"preset=fast-preview", "device=auto", "seed=0", "features=dns", "symmetric=yes"}
    assert words[words.index("--workers") + 1] == "3" and "--resume" not in words
    quick.cohort(pairs, out, settings, workers=3, scheduler="tcp://a:1").wait()
    words = words_of(out)
    assert words[words.index("--scheduler") + 1] == "tcp://a:1" and "--workers" not in words and "--resume" in words
    quick.cohort(pairs, out, settings, resume=False).wait()
    assert "--overwrite" in words_of(out)


def test_the_engine_understands_what_the_panel_asks_of_a_cohort(scene, choices, tmp_path):
    from samconvex.cli.cohort import row_parser
    from samconvex.cohort.manifest import read_manifest
    from SAMConvexRegistrationLib import batch

    write_image(tmp_path / "a.nii.gz")
    (tmp_path / "pairs.csv").write_text("fixed,moving,preset\na.nii.gz,a.nii.gz,\na.nii.gz,a.nii.gz,rigid\n")
    settings = choices.RegistrationSettings("fast-preview", symmetric=True, threads=1)
    given = [word.split("=", 1) for word in batch.settingsOfRows(settings) if word != "--set"]
    parsers = {name: row_parser(name) for name in ("register", "apply")}
    rows, faults = read_manifest(tmp_path / "pairs.csv", parsers, {key: value for key, value in given})
    assert faults == []
    assert [(row.values["preset"], row.values["symmetric"]) for row in rows] == [
        ("fast-preview", True),
        ("rigid", True),
    ]


def test_faults_of_a_table_come_by_row_and_column(quick, choices, pairs, tmp_path):
    pairs.write_text("fixed,moving\na.nii.gz,gone.nii.gz\nlost.nii.gz,a.nii.gz\n")
    run = quick.cohort(pairs, tmp_path / "out", choices.RegistrationSettings())
    assert run.wait() == [] and run.state.value == "failed" and "cannot run" in run.currentJob.message
    assert run.faults == [
        ("2", "moving", "gone.nii.gz does not exist; check the path."),
        ("3", "fixed", "lost.nii.gz does not exist; check the path."),
    ]
    assert not (tmp_path / "out").exists()


def test_cancelling_a_cohort_says_what_stays(quick, choices, pairs, tmp_path):
    quick.engineCommand = lambda arguments: [sys.executable, str(ENGINE), "slow", *map(str, arguments)]
    run = quick.cohort(pairs, tmp_path / "out", choices.RegistrationSettings())
    run.start()
    run.cancel()
    run.wait()
    assert run.state.value == "cancelled" and "what is done stays" in run.currentJob.message


def test_dask_is_installed_only_when_the_user_agrees(scene, monkeypatch):
    from SAMConvexLib import dependencies

    absent = importlib.metadata.PackageNotFoundError

    def version(name):
        raise absent(name)

    monkeypatch.setattr(dependencies.importlib.metadata, "version", version)
    installed = []
    monkeypatch.setattr(slicer.util, "pip_install", installed.append, raising=False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: False)
    with pytest.raises(dependencies.DependencyError, match="was not installed"):
        dependencies.ensureCluster()
    assert installed == []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: True)
    dependencies.ensureCluster()
    assert installed == [dependencies.CLUSTER]


def test_volumes_of_the_scene_are_registered_to_one_fixed_volume(logic, choices):
    from SAMConvexRegistrationLib import batch

    array = build.smooth_array()
    fixed, first, second = (build.volume(name, array, build.oblique()) for name in ("Fixed", "Day 1", "Day 2"))
    run = batch.BatchRun(logic.sceneBatchItems(fixed, [first, second], choices.RegistrationSettings()))
    assert all(item.state.value == "done" for item in run.wait())
    for name in ("Day 1 to Fixed", "Day 2 to Fixed", "Day 1 registered to Fixed", "Day 2 registered to Fixed"):
        assert slicer.util.getNode(name) is not None


def test_the_chosen_features_reach_the_engine_for_every_pair_of_a_batch(logic, choices):
    from SAMConvexRegistrationLib import batch

    settings = choices.RegistrationSettings(features=choices.Features.DNS)
    array = build.smooth_array()
    fixed, moving = (build.volume(name, array, build.oblique()) for name in ("Fixed", "Moving"))
    for item in batch.BatchRun(logic.sceneBatchItems(fixed, [moving], settings)).wait():
        assert "--features dns" in " ".join(item.report["arguments"]), item.name


def test_features_that_the_images_do_not_have_are_told_in_the_batch(logic, choices):
    from SAMConvexRegistrationLib import batch

    # The engine itself judges them.
    del logic.engineCommand
    fixed, moving = (build.volume(name, build.smooth_array(), build.oblique()) for name in ("T1", "T2"))
    items = []
    for features in (choices.Features.SAM, choices.Features.SAM_MIND):
        settings = choices.RegistrationSettings("fast-preview", affine=choices.Affine.NONE, features=features)
        items += logic.sceneBatchItems(fixed, [moving], settings)
    alone, withMind = batch.BatchRun(items).wait()
    assert alone.state.value == "failed" and withMind.state.value == "done"
    assert alone.message == "The features sam need CT in Hounsfield units, not 'T1'; use mind."
    assert withMind.message == "Features of CT were not compared ('T1' is no CT in Hounsfield units)."


def test_cancelling_a_batch_leaves_out_the_rest(logic, choices):
    from SAMConvexRegistrationLib import batch

    fixed, *moving = (build.volume(name, build.smooth_array(), build.oblique()) for name in "fxyz")
    run = batch.BatchRun(logic.sceneBatchItems(fixed, moving, choices.RegistrationSettings()))
    run.start()
    run.cancel()
    run.wait()
    assert [item.state.value for item in run.items] == ["cancelled", "idle", "idle"]


def test_a_failed_volume_stops_no_other(logic, choices):
    from SAMConvexRegistrationLib import batch

    fixed, first, second = (build.volume(name, build.smooth_array(), build.oblique()) for name in "fxy")
    done, calls = logic.engineCommand, []

    def command(arguments):
        calls.append(arguments)
        return [word if word != "done" or len(calls) > 1 else "input" for word in done(arguments)]

    logic.engineCommand = command
    items = batch.BatchRun(logic.sceneBatchItems(fixed, [first, second], choices.RegistrationSettings())).wait()
    assert [item.state.value for item in items] == ["failed", "done"] and "constant" in items[0].message


# --- console --------------------------------------------------------------------------------------------------------


def test_the_console_function_waits_and_gives_the_result(logic):
    array = build.smooth_array()
    fixed, moving = build.volume("Fixed", array, build.oblique()), build.volume("Moving", array, build.oblique())
    points = build.markups("P", [build.center_of(moving)])
    seg = build.segmentation("S", moving, [("a", "A", (1, 0, 0), array > 300)])
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Mine")
    seen = []
    result = logic.registerVolumes(
        fixed,
        moving,
        preset="ct-inter-patient",
        outputTransform=None,
        outputVolume=volume,
        movingSegmentation=seg,
        outputSegmentation=None,
        movingMarkups=points,
        progressCallback=lambda *progress: seen.append(progress),
    )
    assert result.transformNode.GetName() == "Moving to Fixed"
    assert result.outputs.volume is volume and np.ptp(slicer.util.arrayFromVolume(volume)) > 500
    assert result.outputs.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    assert result.outputs.markups.GetNumberOfControlPoints() == 1
    assert result.report["preset"] == "ct-inter-patient"
    assert ("convex", 0.5, "") in seen


def test_the_console_function_takes_single_settings(logic, choices):
    fixed, moving = (build.volume(name, build.smooth_array(), build.oblique()) for name in ("Fixed", "Moving"))
    result = logic.registerVolumes(fixed, moving, preset="mr-ct", features="sam+mind", refinement="adam", threads=2)
    arguments = " ".join(result.report["arguments"])
    for words in ("--preset mr-ct", "--features sam+mind", "--refine adam", "--threads 2"):
        assert words in arguments
    settings = choices.RegistrationSettings(preset="ct-follow-up", seed=3)
    result = logic.registerVolumes(fixed, moving, settings=settings, features=choices.Features.MIND)
    arguments = " ".join(result.report["arguments"])
    for words in ("--preset ct-follow-up", "--seed 3", "--features mind"):
        assert words in arguments
    with pytest.raises(ValueError, match="'edges' is not known as features; choose one of: mind, dns, "):
        logic.registerVolumes(fixed, moving, features="edges")


def test_the_console_function_cancels_when_the_callback_says_so(logic):
    from SAMConvexLib.job import JobCancelled

    fixed, moving = (build.volume(name, build.smooth_array(), build.oblique()) for name in ("Fixed", "Moving"))
    count = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(JobCancelled):
        logic.registerVolumes(fixed, moving, progressCallback=lambda stage, fraction, message: fraction < 0.4)
    assert slicer.mrmlScene.GetNumberOfNodes() == count


def test_the_non_blocking_form_returns_at_once(logic):
    from harness import wait_until

    fixed, moving = (build.volume(name, build.smooth_array(), build.oblique()) for name in ("Fixed", "Moving"))
    job = logic.startRegistration(fixed, moving)
    assert not job.isFinished
    wait_until(lambda: job.isFinished, 120)
    assert job.result.transformNode is not None


# --- dependencies and sample data -----------------------------------------------------------------------------------


def test_nothing_is_installed_or_asked_where_torch_is_there(scene):
    from SAMConvexLib import dependencies

    assert dependencies.missingReason() == ""
    dependencies.ensure()
    assert not getattr(slicer, "packaging", None) or not getattr(slicer.packaging, "installed", [])


def test_an_old_or_missing_torch_is_told(scene, monkeypatch):
    from SAMConvexLib import dependencies

    monkeypatch.setattr(dependencies, "torchVersion", lambda: "1.13.1+cpu")
    assert "1.13.1" in dependencies.missingReason()
    monkeypatch.setattr(dependencies, "torchVersion", lambda: None)
    assert dependencies.missingReason() == "PyTorch is not installed."
    with pytest.raises(dependencies.DependencyError, match="PyTorch extension"):
        dependencies.ensure()


def test_torch_comes_through_the_pytorch_extension(scene, monkeypatch):
    from types import SimpleNamespace

    from SAMConvexLib import dependencies

    calls = []

    class Logic:
        def installTorch(self, **options):
            calls.append(options)
            return "torch"

    monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=Logic))
    monkeypatch.setattr(dependencies, "torchVersion", lambda: None)
    dependencies.ensure()
    assert calls == [{"askConfirmation": True, "torchVersionRequirement": ">=2.1"}]


def test_the_sample_pair_has_a_known_deformation(scene):
    from SAMConvexLib import nodes, sampledata

    array = build.smooth_array((60, 60, 60))
    fixed = build.volume("CT", array, build.centered(np.diag([-3.0, -3.0, 3.0, 1.0]), array.shape))
    moving = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT deformed")
    sampledata.fillDeformed(moving, fixed)
    deformed = slicer.util.arrayFromVolume(moving)
    assert deformed.shape == array.shape and np.allclose(nodes.ijkToRas(moving), nodes.ijkToRas(fixed))
    assert np.abs(deformed - array).max() > 100
    assert np.array_equal(deformed[0], array[0])


def test_the_sample_pair_is_offered_and_nothing_is_downloaded_for_it(load_scripted_module, repository):
    load_scripted_module(repository / "SAMConvexRegistration" / "SAMConvexRegistration.py", enter=False)
    import SampleData

    assert SampleData.SampleDataLogic.categories["SAMConvex"] == "Registration (SAMConvex)"
    assert "SAMConvexChestPair" in [source.sampleName for source in SampleData.SampleDataLogic.sources]
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == []


def test_an_installation_goes_on_after_the_restart_it_needed(load_scripted_module, repository, monkeypatch):
    from SAMConvexLib import dependencies

    calls = []
    monkeypatch.setattr(dependencies, "ensure", lambda: calls.append(1))
    widget = load_scripted_module(repository / "SAMConvexRegistration" / "SAMConvexRegistration.py")
    assert calls == []
    widget.parent.exit()
    dependencies.setPending(True)
    widget.parent.enter()
    assert calls == [1] and not dependencies.isPending()
