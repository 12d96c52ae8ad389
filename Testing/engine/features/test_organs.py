"""Organ probabilities lie where the organs are, and their training blames nobody for what was not labeled."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine.sam_fixtures import GRID, textured_body, turned
from samconvex.anatomy.known import KNOWN
from samconvex.anatomy.organs import organ_probabilities
from samconvex.cli.main import main
from samconvex.errors import InputError
from samconvex.features.organs import SemanticPair
from samconvex.networks.sam_compact import SAMCompact, preprocess
from samconvex.networks.semantic import ORGANS, SemanticNet, prepare
from samconvex.settings.features import FEATURES
from samconvex.space.volume import Volume
from samconvex.training.data.images import Image
from samconvex.training.sam.recipe import save_weights
from samconvex.training.semantic import (
    SemanticSettings,
    Source,
    check_settings,
    make_example,
    organ_loss,
    start_with,
    train,
    truth,
)
from samconvex.weights.models import SemanticModel, load_compact, load_semantic

CENTER = GRID.center + np.array([20.0, -16.0, 30.0])


class DenseFinder(torch.nn.Module):
    """Stands for a network: sure of its only organ where the mean over 5^3 voxels is dense bone."""

    multiple, spacing_mm, organs = 16, 3.0, ("ball",)

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return (F.avg_pool3d(image, 5, 1, 2) - 1.7) * 200


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SemanticModel:
    # The finder's checksum is made up: an answer on disk could be another one's.
    monkeypatch.setenv("SAMCONVEX_NO_DISK_CACHE", "1")
    KNOWN.organs.clear()
    return SemanticModel("finder", DenseFinder(), "0" * 64, 3.0, (16, 16, 16), halo=16)


@pytest.fixture(scope="module")
def body() -> Volume:
    """A body with one dense ball of 24 mm radius in it."""
    volume = textured_body()
    distance = (GRID.voxel_centers(reference=CENTER)).norm(dim=-1)
    return volume.with_tensor(volume.tensor.clamp(max=200).masked_fill(distance[None, None] < 24, 1000))


def middle_of(part) -> np.ndarray:
    inside = (part.tensor[0, 0] > 0.5).nonzero().flip(1).numpy()
    return part.grid.voxels_to_points(inside).mean(0)


def test_an_organ_is_found_where_it_is_in_any_geometry(body, model):
    straight = organ_probabilities(body, model)
    oblique = organ_probabilities(turned(body, 30, (3.0, 4.0, 5.0), flip=True), model)
    assert straight.tensor.shape[2:] == straight.grid.shape and straight.grid.spacing == (3.0, 3.0, 3.0)
    for found in (straight, oblique):
        assert found.grid.is_axis_aligned and np.linalg.norm(middle_of(found) - CENTER) < 1.0


def test_probabilities_are_zero_outside_the_body(body, model):
    outside = body.with_tensor(body.tensor.clone())
    outside.tensor[..., :6, :6, :12] = 1000  # a couch
    found = organ_probabilities(outside, model)
    assert np.linalg.norm(middle_of(found) - CENTER) < 1.0
    everything = torch.ones_like(found.tensor)
    pair = SemanticPair(found, type(found)(everything, found.grid))
    points = torch.tensor([[[[0.0, 0, 0], [500.0, 0, 0]]]])
    assert float(pair.at("fixed", points, CENTER)[0, 0, 0, 0, 0]) > 0.99
    assert pair.at("moving", points, CENTER)[0, 0, 0, 0].tolist() == [1.0, 0.0]


def test_slabs_equal_the_whole(body, model):
    whole = organ_probabilities(body, model)
    plane = whole.grid.size[0] * whole.grid.size[1]
    KNOWN.organs.clear()
    small = SemanticModel("finder", DenseFinder(), "0" * 64, 3.0, (16, 16, 16), tile_voxels=48 * plane, halo=16)
    slabs = organ_probabilities(body, small)
    assert small.network.calls > 1
    torch.testing.assert_close(slabs.tensor, whole.tensor, atol=0.02, rtol=0)


def test_the_same_volume_is_computed_once(body, model):
    first = organ_probabilities(body, model)
    assert organ_probabilities(body, model) is first and model.network.calls == 1
    organ_probabilities(body.with_tensor(body.tensor + 1), model)
    assert model.network.calls == 2


def test_other_modalities_are_refused_in_one_sentence(body, model):
    with pytest.raises(InputError, match="no CT in Hounsfield units; this works on CT only"):
        organ_probabilities(body.with_tensor(body.tensor.float() + 1000), model)


def test_the_network_gives_a_logit_per_organ_and_voxel():
    network = SemanticNet((8, 8, 8, 8), (1, 1, 1, 1), 4).eval()
    assert network(torch.zeros(2, 1, 16, 32, 48)).shape == (2, len(ORGANS), 16, 32, 48)
    with pytest.raises(ValueError, match="multiples of 16"):
        network(torch.zeros(1, 1, 20, 32, 32))


def test_the_shipped_network_knows_the_organs_of_its_recipe_at_3_mm(repository):
    shipped = load_semantic()
    recipe = repository / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "semantic_trunk.json"
    organs = tuple(json.loads(recipe.read_text(encoding="utf-8"))["organs"])
    assert shipped.network.organs == organs and shipped.spacing_mm == 3.0 and not shipped.network.training
    assert FEATURES["semantic"].channels == len(organs)


def test_training_images_and_application_see_the_same_bone():
    assert float(prepare(torch.tensor(1400.0))) == float(prepare(torch.tensor(1000.0)))
    assert float(prepare(torch.tensor(40.0))) == float(preprocess(torch.tensor(40.0))) == 1.0


def case(labels: torch.Tensor | None, name: str = "case") -> Image:
    grid = GRID.cropped((0, 0, 0), (32, 32, 32))
    values = torch.full((1, 1, 32, 32, 32), 0.52).half()
    values[..., :4] = 0
    return Image(name, "ct", values, labels, grid)


def labeled(**boxes: slice) -> torch.Tensor:
    labels = torch.zeros(1, 1, 32, 32, 32, dtype=torch.uint8)
    for number, box in boxes.items():
        labels[0, 0, box, 10:16, 10:16] = int(number[1:])
    return labels


def test_what_is_not_labeled_is_unknown_not_absent():
    example = make_example(case(labeled(l1=slice(20, 30), l2=slice(8, 18))), SemanticSettings())
    assert example is not None
    assert example.known[0].all() and not example.known[2:].any()
    # Below its last contour the spinal cord goes on.
    assert not example.known[1, :8].any() and example.known[1, 8:].all()
    target, known = truth(example)
    assert target.sum((2, 3, 4)).tolist() == [[360, 360, 0, 0, 0, 0, 0]]
    assert torch.equal(known[0, :, :, 5, 5].bool(), example.known)


def test_a_negative_case_knows_what_is_absent_whatever_else_is_labeled():
    settings = SemanticSettings(negatives={"leg*": [1, 3]})
    example = make_example(case(labeled(l1=slice(4, 9)), "leg7"), settings)
    assert example is not None and example.labels is None
    assert [bool(row.all()) for row in example.known] == [True, False, True, False, False, False, False]
    assert truth(example)[0].sum() == 0
    assert make_example(case(None), settings) is None


def test_unknown_voxels_and_organs_have_no_loss():
    torch.manual_seed(0)
    logits, known = torch.randn(1, 3, 8, 8, 8), torch.ones(1, 3, 8, 8, 8)
    target = (torch.rand(1, 3, 8, 8, 8) > 0.5).float()
    known[:, 1], known[:, 2, :4] = 0, 0
    logits.requires_grad_()
    organ_loss(logits, target, known, 5.0)[0].backward()
    assert logits.grad is not None
    touched = logits.grad != 0
    assert torch.equal(touched, known > 0)
    perfect = (target * 2 - 1) * 20
    assert float(organ_loss(perfect, target, known, 5.0)[0]) < 0.01 < float(organ_loss(-perfect, target, known, 5.0)[0])


def test_crops_show_labels_where_the_image_shows_organs():
    image = case(labeled(l7=slice(8, 24)))
    image.values[...] = 0.52
    image.values[image.labels == 7] = 0.9
    example = make_example(image, SemanticSettings())
    assert example is not None
    settings = SemanticSettings(shapes=((32, 32, 32),), intensity=0.0, organ_share=1.0, cut_probability=1.0)
    images, target, known = Source([example], settings).draw(torch.Generator().manual_seed(0))
    bone, organ = images[:, 0] > 1.6, target[:, 6] > 0.5
    assert organ.sum() > 200 and (bone & organ).sum() > 0.85 * (bone | organ).sum()
    # Air only stands for what lies outside the image or was cut off: nobody knows what is there.
    air = images[:, 0] == 0
    assert air.any() and known[:, 6][air].sum() == 0 and known[:, 6][organ].mean() > 0.9
    assert known[:, :6].sum() == 0


def test_a_few_steps_learn_a_bright_organ():
    torch.manual_seed(0)
    image = case(labeled(l7=slice(8, 24)))
    image.values[image.labels == 7] = 0.9
    settings = SemanticSettings(shapes=((32, 32, 32),), batch=1, negatives={"leg": [7]})
    examples = [e for e in (make_example(image, settings), make_example(case(None, "leg"), settings)) if e is not None]
    source, generator = Source(examples, settings), torch.Generator().manual_seed(0)
    network = SemanticNet((8, 8, 8, 8), (1, 1, 1, 1), 8)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        crop, target, known = source.draw(generator)
        loss, _ = organ_loss(network(crop), target, known, 5.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])


def test_the_command_trains_and_writes_loadable_weights(tmp_path, body):
    config, output = tmp_path / "config.json", tmp_path / "organs.pt"
    small = {
        "spacing_mm": 12.0,
        "shapes": [[16, 16, 16]],
        "widths": [4, 4, 4, 4],
        "blocks": [1, 1, 1, 1],
        "detail": 4,
        "organs": ["first", "second"],
        "tubular": [],
    }
    config.write_text(json.dumps(small))
    words = ["train", "semantic", "--data", "phantom", "-o", str(output), "--config", str(config), "--threads", "1"]
    assert main([*words, "--steps", "2", "--progress", "none"]) == 0
    assert main([*words, "--steps", "3", "--resume", "--progress", "none"]) == 0
    loaded = load_semantic(output)
    assert loaded.network.organs == ("first", "second") and loaded.spacing_mm == 12.0
    assert organ_probabilities(body, loaded).tensor.shape[1] == 2
    config.write_text(json.dumps({**small, "organs": ["second", "third", "first"]}))
    more = tmp_path / "more.pt"
    words[words.index(str(output))] = str(more)
    assert main([*words, "--steps", "1", "--start-from", str(output), "--progress", "none"]) == 0
    assert load_semantic(more).network.organs == ("second", "third", "first")
    config.write_text(json.dumps({**small, "shapes": [[20, 16, 16]]}))
    assert main([*words, "--overwrite", "--progress", "none"]) == 2


def test_training_starts_from_embedding_weights(tmp_path, capsys):
    torch.manual_seed(0)
    embedding, weights = SAMCompact([4, 6, 8, 8], [1, 2, 2, 2], 4, 4), tmp_path / "sam.pt"
    save_weights(weights, embedding, {})
    known = load_compact(weights)
    network = SemanticNet([4, 6, 8, 8], [1, 2, 2, 2], 4)
    head = network.head[1].weight.clone()
    start_with(network, known)
    own, given = network.state_dict(), known.state_dict()
    shared = [key for key in given if key.split(".")[0] in ("stem", "stages", "up")]
    assert len(shared) > 30 and all(torch.equal(own[key], given[key]) for key in shared)
    assert torch.equal(own["merge.2.0.weight"], given["merge.1.0.weight"])
    assert torch.equal(network.head[1].weight, head)
    # From the command line; an organ network of other widths is refused, naming both.
    config, output = tmp_path / "config.json", tmp_path / "organs.pt"
    small = {"spacing_mm": 12.0, "shapes": [[16, 16, 16]], "detail": 4, "organs": ["first"], "tubular": []}
    words = ["train", "semantic", "--data", "phantom", "-o", str(output), "--config", str(config), "--threads", "1"]
    words += ["--steps", "1", "--start-from", str(weights), "--progress", "none"]
    config.write_text(json.dumps({**small, "widths": [4, 4, 4, 4], "blocks": [1, 1, 1, 1]}))
    assert main(words) == 2 and not output.exists()
    assert "[4, 6, 8, 8]" in capsys.readouterr().err
    config.write_text(json.dumps({**small, "widths": [4, 6, 8, 8], "blocks": [1, 2, 2, 2]}))
    assert main(words) == 0 and output.exists()


GROUPED = SemanticSettings(
    organs=("brainstem", "liver", "esophagus"),
    label_groups={
        "head": {"cases": ["head*"], "labels": {"1": "brainstem", "5": "esophagus"}, "tubular": ["esophagus"]},
        "belly": {"cases": ["belly*"], "labels": {"1": "liver", "5": "esophagus"}, "share": 3.0},
    },
    negatives={"head*": ["liver"], "leg*": ["brainstem", "liver"]},
)


def test_label_groups_teach_under_one_numbering():
    labels = labeled(l1=slice(20, 30), l5=slice(8, 18))
    head, belly = (make_example(case(labels, name), GROUPED) for name in ("head1", "belly1"))
    assert head is not None and belly is not None
    inside = [360, 0, 360], [0, 360, 360]
    assert [truth(e)[0].sum((2, 3, 4))[0].tolist() for e in (head, belly)] == list(inside)
    # Nobody says whether there is a brainstem in the belly; no liver in a head.
    assert head.known[:2].all() and belly.known[1].all() and not belly.known[0].any()
    # The esophagus goes on below the last contour of one set, and is whole in the other.
    assert not head.known[2, :8].any() and head.known[2, 8:].all() and belly.known[2].all()


def test_labels_of_a_case_of_no_group_are_not_used():
    assert make_example(case(labeled(l1=slice(20, 30)), "other"), GROUPED) is None
    leg = make_example(case(labeled(l1=slice(20, 30)), "leg1"), GROUPED)
    assert leg is not None and leg.labels is None and [bool(row.all()) for row in leg.known] == [True, True, False]


def test_crops_come_from_the_groups_by_their_shares():
    labels = labeled(l1=slice(10, 20))
    made = [make_example(case(labels, name), GROUPED) for name in ("head1", "head2", "head3", "belly1")]
    source, generator = Source([e for e in made if e is not None], GROUPED), torch.Generator().manual_seed(0)
    drawn = [source._members(generator)[0].group for _ in range(400)]
    assert 0.69 < drawn.count("belly") / 400 < 0.81


def test_averaged_weights_are_the_ones_written(tmp_path):
    settings = SemanticSettings(
        spacing_mm=12.0,
        shapes=((16, 16, 16),),
        widths=(4, 4, 4, 4),
        blocks=(1, 1, 1, 1),
        detail=4,
        organs=("first", "second"),
        tubular=(),
        learning_rate=0.1,
        weight_decay=0.1,
        average=0.5,
        threads=1,
    )
    train(None, tmp_path / "w.pt", settings=settings, steps=3)
    written = torch.load(tmp_path / "w.pt", weights_only=True)["state_dict"]["stem.0.weight"].float()
    state = torch.load(tmp_path / "w.resume.pt", weights_only=True)
    torch.testing.assert_close(written, state["average"]["stem.0.weight"], rtol=1e-3, atol=1e-4)
    assert float((written - state["network"]["stem.0.weight"]).abs().max()) > 1e-3
    assert state["optimizer"]["param_groups"][0]["weight_decay"] == 0.1


def test_a_mirror_exchanges_sides_where_a_group_allows_it():
    labels = torch.zeros(1, 1, 32, 32, 32, dtype=torch.uint8)
    labels[0, 0, 10:20, 10:20, 5:12], labels[0, 0, 10:20, 10:20, 20:27] = 1, 2
    sides = {"cases": ["head*"], "labels": {"1": "right", "2": "left"}, "mirrored": [["right", "left"]]}
    settings = SemanticSettings(
        organs=("right", "left"),
        label_groups={"head": sides},
        shapes=((32, 32, 32),),
        batch=1,
        scale=(1.0, 1.0),
        rotation_deg=0.0,
        elastic_voxels=0.0,
        intensity=0.0,
    )
    check_settings(settings)
    example = make_example(case(labels, "head1"), settings)
    assert example is not None
    # Brighter on one side, to see that the image is mirrored too.
    example.hu[..., :16] = 200
    source = Source([example], settings)
    seen = set()
    for number in range(40):
        image, target, _ = source.numbered(number)
        across = [float((target[0, k] > 0).nonzero()[:, 2].float().mean()) for k in range(2)]
        if not np.isfinite(across).all():
            continue
        # The right organ is at the low end, in a mirror too; the bright half is not.
        assert across[0] < across[1]
        bright = [float(image[0, 0][target[0, k] > 0].mean()) for k in range(2)]
        seen.add(bright[0] > bright[1])
    assert seen == {True, False}
    without = replace(settings, label_groups={"head": {k: v for k, v in sides.items() if k != "mirrored"}})
    assert Source([example], without).mirrors == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"label_groups": {"a": {"cases": ["a"], "labels": {"1": "liver"}, "mirrored": [["liver"]]}}},
        {"label_groups": {"a": {"cases": ["a"], "labels": {"1": "liver"}, "mirrored": [["liver", "tail"]]}}},
        {"label_groups": {"a": {"cases": ["a"], "labels": {"1": "tail"}}}},
        {"label_groups": {"a": {"cases": ["a"], "labels": {"one": "liver"}}}},
        {"label_groups": {"a": {"labels": {"1": "liver"}}}},
        {"label_groups": {"a": {"cases": ["a"], "labels": {"1": "liver"}, "weight": 2}}},
        {"negatives": {"a": ["tail"]}},
        {"negatives": {"a": [4]}},
        {"window": (1.0,)},
    ],
)
def test_settings_that_name_nothing_are_refused(wrong):
    check_settings(GROUPED)
    with pytest.raises(InputError, match="organ|label|window"):
        check_settings(replace(GROUPED, **wrong))


def test_the_loss_and_its_gradient_are_those_of_the_formula():
    torch.manual_seed(0)
    target, known = (torch.rand(2, 4, 6, 6, 6) > 0.8).float(), (torch.rand(2, 4, 6, 6, 6) > 0.3).float()
    target[:, 1], known[:, 2] = 0, 0
    first, second = (torch.randn(2, 4, 6, 6, 6, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    organ_loss(first.requires_grad_(), target, known, 5.0)[0].backward()
    dims, inside = (0, 2, 3, 4), torch.sigmoid(second.requires_grad_())
    entropy = (F.binary_cross_entropy_with_logits(second, target, reduction="none") * known).sum(dims)
    dice = (2 * (inside * target * known).sum(dims) + 1) / ((inside * known + target * known).sum(dims) + 1)
    # Organ 1 is nowhere, organ 2 unknown.
    loss = 5 * (entropy[[0, 1, 3]] / known.sum(dims)[[0, 1, 3]]).mean() + 1 - dice[[0, 3]].mean()
    loss.backward()
    assert float(organ_loss(first, target, known, 5.0)[0].detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(first.grad, second.grad)


def test_training_goes_on_from_weights_of_fewer_organs():
    small: dict = {"widths": (4, 4, 4, 4), "blocks": (1, 1, 1, 1), "detail": 4}
    old, new = (SemanticNet(organs=organs, **small) for organs in (("a", "b"), ("b", "c", "a")))
    fresh = new.head[1].weight[1].clone()
    start_with(new, old)
    assert torch.equal(new.stem[0].weight, old.stem[0].weight)
    assert torch.equal(new.head[1].weight[[2, 0]], old.head[1].weight) and torch.equal(new.head[1].weight[1], fresh)
    with pytest.raises(InputError, match="another architecture"):
        start_with(SemanticNet((8, 8, 8, 8), (1, 1, 1, 1), 4, ("a",)), old)


def test_evaluation_patients_are_never_trained_on(repository):
    configs = repository / "SAMConvexRegistration" / "samconvex" / "training" / "configs"
    ours, sam = (
        json.loads((configs / f"{name}.json").read_text(encoding="utf-8")) for name in ("semantic_ct", "sam_ct")
    )
    assert len(sam["exclude"]) == 44 and set(sam["exclude"]) <= set(ours["exclude"])
    assert ours["validation"] == sam["validation"]
    assert SemanticSettings(**ours).organs == ORGANS


@pytest.mark.parametrize("recipe", ["semantic_trunk", "sam_trunk"])
def test_the_trunk_recipes_keep_the_evaluation_patients_out(repository, recipe):
    configs = repository / "SAMConvexRegistration" / "samconvex" / "training" / "configs"
    ours, shipped = (json.loads((configs / f"{name}.json").read_text(encoding="utf-8")) for name in (recipe, "sam_ct"))
    abdomen = {f"btcv{number}" for number in range(14, 20)}
    assert set(shipped["exclude"]) | abdomen <= set(ours["exclude"])
    assert set(shipped["validation"]) <= set(ours["validation"]) and not abdomen & set(ours["validation"])
    assert all(pattern.split("/")[0] in ("headneck", "abdomen", "trunk", "mrct") for pattern in ours["include"])
    if recipe == "semantic_trunk":
        settings = SemanticSettings(**ours)
        check_settings(settings)
        assert len(settings.organs) == 19 and tuple(settings.organs[:7]) == ORGANS
        patterns = [pattern for group in settings.label_groups.values() for pattern in group["cases"]]
        assert not any(fnmatch(name, pattern) for name in abdomen for pattern in patterns)
