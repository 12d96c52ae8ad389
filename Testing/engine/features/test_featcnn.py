"""FeatCNN has the paper's sizes, its features lie where they claim to, and its weights are checked before use."""

from __future__ import annotations

import pytest
import samconvex
import torch
import torch.nn.functional as F
from samconvex.errors import InputError
from samconvex.features.featcnn import FeatCnnExtractor
from samconvex.features.mind import mind_ssc
from samconvex.networks.featcnn import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, FeatCNN
from samconvex.space.grid import Grid
from samconvex.space.intensity import normalized_intensity
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import make_phantom
from samconvex.training.loop import save_checkpoint
from samconvex.weights.models import load_network


@pytest.mark.parametrize(("reductions", "parameters", "stride"), [(1, 97_484, 2), (2, 152_844, 4)])
def test_the_papers_parameter_counts_and_strides(reductions, parameters, stride):
    network = FeatCNN(reductions)
    assert sum(p.numel() for p in network.parameters()) == parameters
    described = network(torch.rand(1, 1, 16, 8, 12), "ct")
    assert described.shape == (1, 12, 16 // stride, 8 // stride, 12 // stride)
    assert 0 < float(described.min()) and float(described.max()) < 1


@pytest.mark.parametrize("reductions", [1, 2])
def test_a_feature_voxel_stands_for_the_middle_of_its_block(reductions):
    """Mirroring the image and all kernels mirrors the features; only centered sampling has that symmetry."""
    torch.manual_seed(0)
    network = FeatCNN(reductions).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv3d):
                module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
        image = torch.zeros(1, 1, 32, 32, 64)
        image[..., 12:20, 12:20, 28:36] = torch.rand(8, 8, 8)
        described, mirrored = network(image, "mr"), network(image.flip(-1), "mr").flip(-1)
    # Away from the borders, where the padding of strided convolutions is one-sided.
    inner = (..., slice(6, -6)) if reductions == 1 else (..., slice(4, -4))
    assert float((described - mirrored)[inner].abs().max()) < 0.02


def test_the_branches_differ():
    network = FeatCNN()
    image = torch.rand(1, 1, 8, 8, 8)
    assert not torch.allclose(network(image, "ct"), network(image, "mr"))


def test_the_modality_survives_normalization():
    network, seen = FeatCNN().eval(), []
    network.forward = lambda image, branch: seen.append(branch) or torch.zeros(1, 12, 4, 4, 4)
    grid = Grid((8, 8, 8), (2.0, 2.0, 2.0))
    for modality in ("ct", "mr"):
        FeatCnnExtractor(network)(Volume(torch.rand(1, 1, 8, 8, 8), grid, known_modality=modality))
    assert seen == ["ct", "mr"]


def test_features_come_on_the_grid_they_were_asked_for():
    grid = Grid((10, 12, 9), (2.0, 2.0, 2.0))
    volume = Volume(torch.rand(1, 1, *grid.shape), grid)
    extractor = FeatCnnExtractor(FeatCNN().eval())
    assert extractor(volume).tensor.shape == (1, 12, *grid.shape)
    even = Volume(torch.rand(1, 1, 8, 12, 16), Grid((16, 12, 8), (2.0, 2.0, 2.0)))
    pooled = extractor.pooled(even, 2)
    assert pooled.tensor.shape == (1, 12, 4, 6, 8) and pooled.grid == even.grid.strided(2)
    # Pooling the interpolated map loses some detail but no position.
    difference = torch.nn.functional.avg_pool3d(extractor(even).tensor, 2) - pooled.tensor
    assert float(difference.abs().mean()) < 0.3 * float(pooled.tensor.std())


def test_weights_survive_saving_and_foreign_files_are_refused(tmp_path):
    network = FeatCNN(2)
    path = tmp_path / "mine.pt"
    save_checkpoint(path, network, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, {})
    loaded = load_network(FeatCNN, path)
    image = torch.rand(1, 1, 8, 8, 8)
    torch.testing.assert_close(loaded(image, "ct"), network.eval()(image, "ct"), atol=1e-2, rtol=1e-2)
    save_checkpoint(path, network, "samconvex-other", CHECKPOINT_VERSION, {})
    with pytest.raises(InputError, match="other weights"):
        load_network(FeatCNN, path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="could not be read"):
        load_network(FeatCNN, path)


def test_registration_runs_on_featcnn_and_diffusion(tmp_path):
    from samconvex.settings.registration import DiffusionSettings, Level, Settings

    path = tmp_path / "featcnn.pt"
    save_checkpoint(path, FeatCNN(), CHECKPOINT_FORMAT, CHECKPOINT_VERSION, {})
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 8, 8, 8, generator=generator)
    values = torch.nn.functional.interpolate(coarse, size=(24, 24, 24), mode="trilinear") * 100 + 50
    grid = Grid((24, 24, 24), (4.0, 4.0, 4.0))
    settings = Settings(
        "small",
        "",
        affine="none",
        levels=(Level(16.0, 1, 2, ("featcnn",)),),
        refine="diffusion",
        diffusion=DiffusionSettings(spacing=16.0, iterations=2),
        working_spacing=8.0,
        field_spacing=16.0,
    )
    result = samconvex.register(Volume(values, grid), Volume(values.roll(1, 4), grid), preset=settings, weights=path)
    assert {"convex", "refine"} <= set(result.report["seconds"]["stages"])


@pytest.mark.parametrize(("name", "least"), [("featcnn", 0.2), ("suits", 0.12)])
def test_the_shipped_networks_resemble_mind_and_an_untrained_one_does_not(name, least):
    image = normalized_intensity(make_phantom(2, 4.0, couch=False).ct)[:, :, 20:52, 20:52, 20:52]
    target = F.avg_pool3d(mind_ssc(image), 2)

    def resemblance(network: FeatCNN, branch: str) -> float:
        """Correlation with MIND, each channel's mean apart."""
        with torch.no_grad():
            channels = [(v - v.mean((2, 3, 4), keepdim=True)).flatten() for v in (network(image, branch), target)]
        return float(F.cosine_similarity(*channels, dim=0))

    torch.manual_seed(0)
    networks = load_network(FeatCNN, name), FeatCNN().eval()
    shipped, untrained = ([resemblance(network, branch) for branch in ("ct", "mr")] for network in networks)
    assert min(shipped) > least and max(untrained) < 0.05
