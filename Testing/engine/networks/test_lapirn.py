"""LapIRN: the published network's field and checkpoints; velocities integrate to a map and its inverse."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from samconvex.cli.main import main
from samconvex.errors import InputError
from samconvex.networks.lapirn import LapIRN, from_published, integrated, is_published, units_of, warped
from samconvex.weights import models
from samconvex.weights.checkpoints import built
from samconvex.weights.importing import import_weights

PUBLISHED_PARAMETERS = 923_748


def published_state(network: LapIRN) -> dict[str, torch.Tensor]:
    """The network's tensors under the names of the authors' checkpoints."""
    prefixes = ("model_lvl2.model_lvl1.", "model_lvl2.", "")
    names = {"encoder": "input_encoder_lvl1", "down": "down_conv", "output": "output_lvl1"}
    state = {}
    for key, value in network.state_dict().items():
        _, number, part, rest = key.split(".", 3)
        if part == "blocks":
            block, rest = rest.split(".", 1)
            part, rest = "resblock_group_lvl1", f"{2 * int(block)}.{rest}"
        state[f"{prefixes[int(number)]}{names.get(part, part)}.{rest}"] = value
    return state


@pytest.fixture
def network() -> LapIRN:
    torch.manual_seed(3)
    return LapIRN(start_channels=1).eval()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SAMCONVEX_HOME", str(tmp_path / "home"))
    return tmp_path


def test_the_recorded_displacement_of_the_published_network_is_reproduced(shared_data):
    """The checkpoint is not among the fixtures: SAMCONVEX_LAPIRN names the authors' ``LapIRN_disp_fea7.pth``."""
    recorded = shared_data.parent / "parity" / "lapirn_disp.npz"
    checkpoint = Path(os.environ.get("SAMCONVEX_LAPIRN", recorded.with_name("LapIRN_disp_fea7.pth")))
    for path in (recorded, checkpoint):
        if not path.is_file():
            pytest.skip(f"{path} is absent (SAMCONVEX_LAPIRN names the checkpoint)")
    official = models.load_network(LapIRN, checkpoint)
    assert sum(value.numel() for value in official.state_dict().values()) == PUBLISHED_PARAMETERS
    reference = np.load(recorded)
    moving, fixed = (torch.from_numpy(reference[name])[None, None] for name in ("moving", "fixed"))
    with torch.inference_mode():
        found = official(moving, fixed).numpy()
    np.testing.assert_allclose(found, reference["flow_unit"], atol=1e-4)


def test_the_published_architecture_has_its_parameters_and_names():
    with torch.device("meta"):
        state = published_state(LapIRN())
    assert sum(value.numel() for value in state.values()) == PUBLISHED_PARAMETERS and len(state) == 48
    assert tuple(state["model_lvl2.model_lvl1.input_encoder_lvl1.0.weight"].shape) == (28, 2, 3, 3, 3)
    assert tuple(state["output_lvl1.0.weight"].shape) == (28, 56, 3, 3, 3)
    assert "model_lvl2.resblock_group_lvl1.8.conv2.weight" in state


def test_a_published_checkpoint_becomes_the_same_network(network):
    content = from_published(published_state(network), diffeomorphic=False)
    assert content["config"]["axes"] == "xyz-ras" and content["config"]["start_channels"] == 1
    moving, fixed = torch.rand(2, 1, 1, 16, 24, 8)
    with torch.inference_mode():
        np.testing.assert_array_equal(built(LapIRN, content)(moving, fixed), network(moving, fixed))
    assert not is_published({"conv.weight": torch.zeros(3)})


def test_every_level_corrects_the_one_before(network):
    moving, fixed = torch.rand(2, 1, 1, 16, 16, 24)
    with torch.inference_mode():
        fields = network.fields(moving, fixed)
        assert [tuple(f.displacement.shape[2:]) for f in fields] == [(4, 4, 6), (8, 8, 12), (16, 16, 24)]
        # Softsign keeps each correction below 0.4 of half the image.
        assert float(fields[0].displacement.abs().max()) < 0.4
        for level in network.levels:
            level.output[2].weight.zero_()
        silent = network.fields(moving, fixed)
    assert all(float(f.displacement.abs().max()) == 0 for f in silent)
    with pytest.raises(ValueError, match="multiples of 8"):
        network(moving[..., :12], fixed[..., :12])


@pytest.mark.parametrize("diffeomorphic", [False, True])
def test_a_shift_is_as_many_voxels_in_an_image_of_another_size(diffeomorphic):
    torch.manual_seed(3)
    learned = LapIRN(diffeomorphic, 1, shape=(24, 24, 24)).eval()
    unsized = LapIRN(diffeomorphic, 1).eval()
    with torch.no_grad():
        for level in learned.levels:
            level.output[2].weight.mul_(10)
    unsized.load_state_dict(learned.state_dict())
    x = torch.arange(24.0) - 11.5
    bump = torch.exp(-(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None] ** 2) / 8)
    images = bump[None, None], bump.roll(1, -1)[None, None]
    wide = [torch.nn.functional.pad(image, (24, 24)) for image in images]

    def voxels(network: LapIRN, seen) -> torch.Tensor:
        found = network(*seen)
        return found * (torch.tensor(found.shape[:1:-1]) - 1).view(1, 3, 1, 1, 1) / 2

    with torch.inference_mode():
        expected = voxels(learned, images)
        again, other = (voxels(network, wide)[..., 24:-24] for network in (learned, unsized))
        torch.testing.assert_close(expected, voxels(unsized, images))
    # Near the edges of its images a network sees less.
    expected, again, other = (found[..., 7:-7, 7:-7, 7:-7] for found in (expected, again, other))
    strength = float(expected[:, 0].abs().max())
    assert strength > 0.1 and float((again - expected).abs().max()) < 0.1 * strength
    assert float((other - expected)[:, 0].abs().max()) > 0.5 * strength


def test_units_are_those_of_half_the_training_images():
    image = torch.zeros(1, 1, 9, 5, 3)
    assert units_of((5, 9, 5), image).flatten().tolist() == [2.0, 2.0, 0.5]  # x, y, z
    assert units_of(None, image).flatten().tolist() == [1.0, 1.0, 1.0]


def test_velocities_integrate_to_a_map_whose_inverse_is_their_negative():
    x = torch.linspace(-1, 1, 24)
    bump = torch.exp(-6 * (x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None] ** 2))
    velocity = 0.3 * torch.stack([bump, -bump, 0.5 * bump])[None]
    forward, backward = integrated(velocity), integrated(-velocity)
    assert float((forward + warped(backward, forward)).abs().max()) < 0.02
    # Adding up displacements would not be inverted by the negative.
    assert float((velocity + warped(-velocity, velocity)).abs().max()) > 0.05


@pytest.mark.parametrize(("name", "integrates"), [("LapIRN_disp_fea7.pth", False), ("LapIRN_diff_fea7.pth", True)])
def test_published_files_are_imported_by_what_their_names_say(network, home, name, integrates):
    torch.save(published_state(network), home / name)
    entry = import_weights(home / name, "brains")
    assert entry.network == "lapirn" == models.family_of("brains") == models.family_of(home / name)
    loaded = models.load_feed_forward("brains")
    assert isinstance(loaded, LapIRN) and loaded.diffeomorphic is integrates
    import_weights(home / name, "brains")  # the same file again is no conflict


def test_a_published_file_that_does_not_say_which_network_it_is_of_is_refused(network, home, capsys):
    torch.save(published_state(network), home / "mine.pth")
    assert main(["weights", "import", str(home / "mine.pth")]) == 2
    assert "contains 'disp'" in capsys.readouterr().err
    torch.save({**published_state(network), "up.weight": torch.zeros(3)}, home / "disp.pth")
    with pytest.raises(InputError, match="damaged samconvex-lapirn"):
        import_weights(home / "disp.pth")


def test_weights_that_predict_no_field_are_refused():
    with pytest.raises(InputError, match="predict no field"):
        models.load_feed_forward("masr")


@pytest.mark.parametrize(("name", "shape"), [("lapirn-ct", (88, 64, 104)), ("same-ct", (96, 64, 112))])
def test_shipped_weights_know_the_box_and_the_voxels_they_learned_from(name, shape):
    network = models.load_feed_forward(name)
    assert (tuple(network.shape), network.spacing_mm, network.axes) == (shape, 4.0, "zyx-lps")
    family = next(family for family in models.FAMILIES if family.default == name)
    shipped = models.load_network(family.kind).state_dict()
    assert shipped.keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in shipped.items())
