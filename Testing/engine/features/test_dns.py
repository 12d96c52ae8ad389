"""DNS does not see contrast, its slabs have no seams, and a pair is described once along the same axes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from samconvex.errors import InputError
from samconvex.features import dns
from samconvex.features.dns import DnsExtractor, DnsPair
from samconvex.networks import masr
from samconvex.networks.masr import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, LAYOUTS, PAIRS, MASRNet, _BlurPool, gaussian
from samconvex.space.grid import Grid
from samconvex.space.intensity import normalized_intensity
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume, resample
from samconvex.synthetic.phantom import make_phantom
from samconvex.training.loop import save_checkpoint
from samconvex.weights.models import load_network


def network(**options) -> MASRNet:
    torch.manual_seed(0)
    return MASRNet(widths=(4, 4, 8, 8), maps=3, channels=6, **options).eval()


def test_descriptors_are_unit_vectors_at_full_resolution():
    described = network()(torch.rand(1, 1, 16, 8, 24))
    assert described.shape == (1, 6, 16, 8, 24)
    torch.testing.assert_close(described.norm(dim=1), torch.ones(1, 16, 8, 24))


def test_similarities_agree_with_a_direct_computation():
    net = network()
    maps = torch.rand(1, 3, 9, 9, 9)
    found = net.similarities(maps)[0, :, 4, 4, 4]
    expected = []
    for number, radius in enumerate(LAYOUTS):
        at = {n: maps[0, :, 4 + radius * n[0], 4 + radius * n[1], 4 + radius * n[2]] for pair in PAIRS for n in pair}
        squares = torch.stack([(at[a] - at[b]) ** 2 for a, b in PAIRS])
        similar = torch.exp(-squares / (squares.mean(0) + masr.FLOOR))
        expected.append((similar * net.squeeze[12 * number : 12 * number + 12]).sum(1))
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-4)


def test_the_center_voxel_is_never_compared():
    net = network()
    maps = torch.rand(1, 3, 9, 9, 9)
    changed = maps.clone()
    changed[:, :, 4, 4, 4] += 5
    torch.testing.assert_close(net.similarities(maps)[..., 4, 4, 4], net.similarities(changed)[..., 4, 4, 4])


def test_without_learning_an_inverted_image_has_the_same_descriptors():
    net = network(learned=False)
    image = torch.rand(1, 1, 16, 16, 16)
    torch.testing.assert_close(net(image), net(1 - image), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(net(image), net(image.flip(2)), atol=0.1)


def test_single_layout_and_no_smoothing_are_smaller_networks():
    assert network(layouts=(1,)).squeeze.shape == (12, 3)
    image = torch.rand(1, 1, 8, 8, 8)
    assert not torch.allclose(network(smoothed=False)(image), network()(image), atol=1e-3)


def test_blurred_pooling_keeps_ramps_in_place():
    ramp = torch.arange(12.0).view(1, 1, 1, 1, 12).expand(1, 1, 4, 4, 12)
    pooled = _BlurPool()(ramp)
    torch.testing.assert_close(pooled[0, 0, 0, 0, 1:-1], torch.arange(12.0).view(6, 2).mean(1)[1:-1])


def test_the_gaussian_keeps_constants_and_the_mean():
    torch.testing.assert_close(gaussian(torch.ones(1, 2, 5, 5, 5)), torch.ones(1, 2, 5, 5, 5))
    spike = torch.zeros(1, 1, 9, 9, 9)
    spike[..., 4, 4, 4] = 1
    smoothed = gaussian(spike)
    assert float(smoothed.sum()) == pytest.approx(1, abs=1e-5) and float(smoothed.max()) < 0.1


def test_slabs_leave_no_seams(monkeypatch):
    grid = Grid((10, 9, 26), (2.0, 2.0, 2.0))
    volume = Volume(torch.rand(1, 1, *grid.shape), grid)
    extractor = DnsExtractor(network())
    whole = extractor(volume).tensor
    for module in (dns, masr):
        monkeypatch.setattr(module, "SLAB_VOXELS", 4 * 90)
    torch.testing.assert_close(extractor(volume).tensor, whole, atol=1e-5, rtol=1e-4)


def turned(degrees: float, about: np.ndarray, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Transform:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return Transform((AffineTransform.about(about, np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.array(shift)),))


@pytest.fixture(scope="module")
def head() -> Volume:
    ct = make_phantom(2, 4.0, couch=False).ct
    return ct.with_tensor(normalized_intensity(ct))


def test_a_pair_is_read_in_each_images_own_frame_and_along_the_same_axes(head, monkeypatch):
    box = np.stack([head.grid.corners().min(0) + 80, head.grid.corners().max(0) - 80])
    initial = turned(25, head.grid.center, (0.0, 0.0, 400.0))
    # What lies at x in the fixed image lies at initial(x) in the moving one.
    there = replace(head.grid, origin=tuple(np.asarray(head.grid.origin) + (0.0, 0.0, 400.0)))
    moving = initial.inverse().warp_volume(head, there, background=0.0)
    grid = Grid.covering(box, 8.0)
    points = grid.voxel_centers(reference=grid.center)
    body = resample(head, grid).tensor > 0.2

    def alike(moving_points: torch.Tensor, reference: np.ndarray) -> float:
        pair = DnsPair(DnsExtractor(load_network(MASRNet, None)), head, moving, initial, box, 6.0)
        assert pair.spacing_mm == pytest.approx(4.0)
        product = pair.at("fixed", points, grid.center) * pair.at("moving", moving_points, reference)
        return float(product.sum(1, keepdim=True)[body].mean())

    found = alike(*initial.map_relative(points, grid.center))
    monkeypatch.setattr(dns, "turn", lambda *_: np.eye(3))
    assert found > 0.7 and found > alike(*initial.map_relative(points, grid.center)) + 0.1


def test_the_turn_of_a_start_is_found_whatever_else_it_does():
    corners = Grid((10, 12, 14), (3.0, 3.0, 3.0)).corners()
    rotation = turned(25, np.zeros(3))
    stretched = AffineTransform(np.diag([1.1, 0.9, 1.05]), np.array([5.0, -3.0, 2.0]))
    both = Transform((*rotation.parts, stretched))
    np.testing.assert_allclose(dns.turn(rotation, corners), rotation.map_points(np.eye(3)).T, atol=1e-9)
    cosine = (np.trace(dns.turn(both, corners).T @ dns.turn(rotation, corners)) - 1) / 2
    assert cosine > np.cos(np.radians(8))
    mirrored = Transform((AffineTransform(np.diag([-1.0, 1.0, 1.0]), np.zeros(3)),))
    np.testing.assert_array_equal(dns.turn(mirrored, corners), np.eye(3))


def test_a_large_region_is_described_more_coarsely(head, monkeypatch):
    monkeypatch.setattr(dns, "_VOXELS", 3000)
    box = np.stack([head.grid.corners().min(0), head.grid.corners().max(0)])
    pair = DnsPair(DnsExtractor(network()), head, head, Transform(), box, 6.0)
    count = np.prod(box[1] - box[0]) / pair.spacing_mm**3
    assert pair.spacing_mm > 4.0 and count == pytest.approx(3000, rel=0.01)
    assert dns.map_voxels(1e9, 6.0) == 3000 and dns.map_voxels(64_000.0, 6.0) == 1000


def test_weights_survive_saving_and_foreign_files_are_refused(tmp_path):
    net, path = network(), tmp_path / "masr.pt"
    save_checkpoint(path, net, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, {})
    image = torch.rand(1, 1, 8, 8, 8)
    cosine = (load_network(MASRNet, path)(image) * net(image)).sum(1)
    assert float(cosine.min()) > 0.99
    save_checkpoint(path, net, CHECKPOINT_FORMAT, CHECKPOINT_VERSION + 1, {})
    with pytest.raises(InputError, match="format version"):
        load_network(MASRNet, path)


def test_the_shipped_network_finds_places_in_an_inverted_image_that_an_untrained_one_does_not():
    ct = make_phantom(2, 4.0, couch=False).ct
    image = normalized_intensity(ct)[:, :, 20:52, 20:52, 20:52]
    bent = 1 - image.clamp(0, 1) ** 1.5
    places = (image[0, 0] > 0.3).flatten().nonzero()[:, 0][::40]
    torch.manual_seed(0)
    share = {}
    for name, net in (("shipped", load_network(MASRNet)), ("untrained", MASRNet().eval())):
        with torch.no_grad():
            first, second = (net(view)[0].flatten(1)[:, places].T for view in (image, bent))
        share[name] = float(((first @ second.T).argmax(1) == torch.arange(len(places))).float().mean())
    assert share["shipped"] > share["untrained"] + 0.1
