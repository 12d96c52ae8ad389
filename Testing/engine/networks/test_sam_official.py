"""The authors' networks: same checkpoint keys, same output, loadable through the path a user takes."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import torch
from engine.sam_fixtures import textured_body
from samconvex.anatomy.embed import embed
from samconvex.networks.sam_official import SAMOfficial, checkpoint_state, from_state, preprocess_ct
from samconvex.space.grid import Grid
from samconvex.weights import models as weights
from samconvex.weights.importing import import_weights


@pytest.fixture(scope="module")
def parity(shared_data):
    folder = shared_data.parent / "parity"
    if not (folder / "sam_forward.npz").is_file():
        pytest.skip(f"the parity fixtures are not at {folder}")
    return folder


def reproducible_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights by the parity fixture's rule: from a checksum of each key."""
    state = network.state_dict()
    for key, tensor in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        random = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
        shape = tuple(tensor.shape)
        if key.endswith("running_var") or key.endswith(".bn.weight"):
            values = random.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            values = random.standard_normal(shape) * 0.1
        state[key] = torch.from_numpy(values).float()
    return {key: torch.tensor(0) if value.is_meta else value for key, value in state.items()}


@pytest.fixture(scope="module")
def official() -> SAMOfficial:
    with torch.device("meta"):
        network = SAMOfficial()
    return from_state(reproducible_state(network))


@pytest.mark.parametrize(("semantic", "name"), [(False, "sam"), (True, "uae")])
def test_keys_and_shapes_equal_the_published_checkpoints(parity, semantic, name):
    expected = json.loads((parity / f"{name}_state_dict_shapes.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        network = SAMOfficial(semantic)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == expected


def test_forward_reproduces_the_reference(parity, official):
    reference = np.load(parity / "sam_forward.npz")
    with torch.inference_mode():
        maps = official(torch.from_numpy(reference["x"]).float())
    for name in ("fine", "coarse"):
        np.testing.assert_allclose(maps[name].numpy(), reference[name], atol=1e-4)


def test_preprocessing_maps_air_and_water_as_published():
    values = preprocess_ct(torch.tensor([-1000.0, 0.0, -3000.0, 5000.0]))
    np.testing.assert_allclose(values.numpy(), [-48.5, 13.77, -50.0, 205.0], atol=0.02)


def test_strides_and_unit_length(official):
    with torch.inference_mode():
        maps = official(torch.randn(1, 1, 8, 32, 48))
    assert maps["fine"].shape == (1, 128, 4, 16, 24)
    assert maps["coarse"].shape == (1, 128, 2, 2, 3)
    np.testing.assert_allclose(maps["fine"].norm(dim=1).numpy(), 1, atol=1e-5)


def test_checkpoint_loads_through_the_users_path(official, tmp_path, monkeypatch):
    monkeypatch.setenv("SAMCONVEX_HOME", str(tmp_path / "home"))
    file = tmp_path / "SAMv2_iter_20000.pth"
    torch.save({"state_dict": official.state_dict(), "meta": {"epoch": 3}}, file)
    entry = import_weights(file)
    assert (entry.name, entry.network) == ("samv2_iter_20000", "sam")
    model = weights.load_sam(entry.name)
    x = torch.randn(1, 1, 8, 32, 32)
    with torch.inference_mode():
        np.testing.assert_allclose(model.network(x)["fine"].numpy(), official(x)["fine"].numpy(), atol=1e-6)


@pytest.mark.parametrize("style", ["bare", "module prefix", "extra training heads", "no counters"])
def test_published_variants_of_the_dictionary_are_understood(official, style):
    state = dict(official.state_dict())
    if style == "module prefix":
        state = {f"module.{key}": value for key, value in state.items()}
    elif style == "extra training heads":
        state["roi_head.weight"] = torch.zeros(3)
    elif style == "no counters":
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    loaded = from_state(checkpoint_state(state)).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in official.state_dict().items())


def test_uae_is_recognized_and_embeds_with_its_semantic_head(tmp_path, official):
    semantic = {key.replace("neck.", "semantic_head."): value for key, value in official.state_dict().items()}
    torch.save({"state_dict": {**semantic, **official.state_dict()}}, tmp_path / "uae.pth")
    model = weights.load_sam(tmp_path / "uae.pth")
    assert model.kind == "uae"
    embedding = embed(textured_body(grid=Grid((20, 18, 20), (5.0, 5.0, 5.0))), model)
    assert embedding.fine.tensor.shape[1] == 256
    # The feature grid keeps "voxel = 2 * index + 0.5" on every axis.
    assert embedding.fine.grid.spacing == (4.0, 4.0, 4.0)
    assert embedding.coarse.grid.spacing == (32.0, 32.0, 8.0)


def test_state_of_another_network_is_refused():
    assert checkpoint_state({"state_dict": {"a": 1}}) is None
    with pytest.raises(ValueError, match="not a SAM"):
        from_state({"conv.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match="missing"):
        from_state({"backbone.conv1.conv.weight": torch.zeros(64, 1, 3, 7, 7)})
