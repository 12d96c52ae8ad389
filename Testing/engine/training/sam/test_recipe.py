"""The SAM recipe: it learns, stops, resumes, and writes what the product can load."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from samconvex import InputError
from samconvex.cli.main import main
from samconvex.errors import Cancelled
from samconvex.synthetic.phantom import make_phantom
from samconvex.training.data.cases import make_case
from samconvex.training.data.views import View
from samconvex.training.sam import recipe
from samconvex.training.sam.batches import BatchSource, Renderer
from samconvex.training.sam.recipe import build_network, train, validate
from samconvex.training.sam.settings import SamSettings
from samconvex.training.sam.validation import embed, match
from samconvex.weights.models import load_sam_file

SPACING = 6.0
TINY = SamSettings(
    spacing_mm=SPACING,
    widths=[16, 24, 32, 32],
    blocks=[1, 1, 1, 1],
    fine_channels=32,
    coarse_channels=32,
    shapes=[(48, 48, 48)],
    candidates=400,
    queries=80,
    ignore_mm=14.0,
    warmup_steps=10,
    learning_rate=3e-3,
    average=0.95,
    threads=1,
    workers=0,
    validate_every_s=1e9,
    save_every_s=1e9,
)


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(seed, 8.0) for seed in range(6)]


@pytest.fixture(scope="module")
def cases(phantoms):
    return [
        make_case(p.ct, p.labels, name=f"p{seed}", group="phantom", spacing=SPACING) for seed, p in enumerate(phantoms)
    ]


def _landmark_errors(network, phantoms, cases):
    """Errors in mm of anatomical points of one phantom found in another, both unseen in training."""
    (first, second), (here, there) = phantoms[-2:], cases[-2:]
    names = sorted(set(first.landmarks) & set(second.landmarks))
    points = here.grid.points_to_voxels(np.stack([first.landmarks[n] for n in names]))[:, ::-1].copy()
    truth = there.grid.points_to_voxels(np.stack([second.landmarks[n] for n in names]))[:, ::-1]
    network.eval()
    found = match(network, embed(network, here), torch.from_numpy(points).float(), embed(network, there), there.body)
    return np.linalg.norm(found.numpy() - truth, axis=1) * SPACING


@pytest.mark.slow
def test_training_learns_anatomy(tmp_path, phantoms, cases):
    torch.manual_seed(TINY.seed)
    before = np.median(_landmark_errors(build_network(TINY), phantoms, cases))
    train(cases[:-2], tmp_path / "sam.pt", settings=TINY, steps=120)
    model = load_sam_file(tmp_path / "sam.pt")
    after = np.median(_landmark_errors(model.network, phantoms, cases))
    assert after < 0.5 * before
    assert after < 20.0, "at 6 mm voxels, on patients never seen"


def test_a_run_can_be_stopped_and_resumed(tmp_path, cases):
    settings = replace(TINY, shapes=[(32, 32, 32)], validation=["p5"])
    output = tmp_path / "sam.pt"

    def stop_at_three(stage, fraction, message):
        if stage == "train" and fraction >= 0.5:
            raise Cancelled()

    with pytest.raises(Cancelled, match="weights so far"):
        train(cases, output, settings=settings, steps=6, progress=stop_at_three)
    assert load_sam_file(output).kind == "sam-compact"
    result = train(cases, output, settings=settings, steps=6, resume=True)
    assert result["step"] == 6
    assert result["validation"]["warps"]["n"] > 0
    content = torch.load(output, weights_only=True)
    assert content["meta"]["step"] == 6 and content["meta"]["training_cases"] == 5
    events = [json.loads(line) for line in (tmp_path / "sam.log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [e["resume"] for e in events if e.get("event") == "start"] == [False, True]
    with pytest.raises(InputError, match="does not fit"):
        train(cases, output, settings=replace(settings, widths=[8, 8, 8, 8]), steps=9, resume=True)


def test_minutes_end_the_run(tmp_path, cases):
    result = train(cases[:2], tmp_path / "sam.pt", settings=replace(TINY, shapes=[(32, 32, 32)]), minutes=0.02)
    assert result["step"] >= 1 and 1.2 <= result["seconds"] < 12


def test_views_that_share_nothing_end_the_run_with_a_sentence(tmp_path, cases, monkeypatch):
    monkeypatch.setattr(recipe, "MOST_TRIES", 3)
    apart = replace(TINY, shapes=[(16, 16, 16)], view_shift=40.0, label_share=0.0)
    with pytest.raises(InputError, match="share hardly anything.*shapes"):
        train(cases[:2], tmp_path / "sam.pt", settings=apart, steps=3)
    assert not (tmp_path / "sam.pt").exists()


def test_the_same_seed_draws_the_same_batches(cases):
    first, second = (BatchSource(cases, TINY, 3).draw(0) for _ in range(2))
    other = BatchSource(cases, TINY, 4).draw(0)
    seen = [Renderer(cases, TINY, torch.device("cpu")).images(batch) for batch in (first, second, other)]
    assert torch.equal(seen[0], seen[1])
    assert first.names == second.names
    assert not torch.equal(seen[0], seen[2])


def test_labels_connect_only_the_steps_that_should_have_them(cases):
    without = BatchSource(cases, replace(TINY, label_share=0.0), 0)
    assert all(without.draw(number).labeled is None for number in range(3))
    always = BatchSource(cases, replace(TINY, label_share=1.0), 0)
    batch = always.draw(0)
    assert batch.labeled is not None
    assert len(batch.labeled[0].points) == len(batch.labeled[1].points) == len(batch.tolerance) > 20


def test_unknown_settings_are_refused(tmp_path):
    config = tmp_path / "c.json"
    config.write_text('{"learning_speed": 3}')
    with pytest.raises(InputError, match="learning_speed"):
        SamSettings.from_file(config)
    config.write_text('{"shapes": [[30, 32, 32]]}')
    with pytest.raises(InputError, match="multiples of 16"):
        SamSettings.from_file(config)


def test_the_shipped_recipe_reads_and_keeps_the_evaluation_patients_out(repository):
    settings = SamSettings.from_file(
        repository / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "sam_ct.json"
    )
    assert {"lidc0001", "rad_lung1", "rad_lung2", "ts_example"} <= set(settings.exclude)
    assert len([name for name in settings.exclude if name.startswith("hn")]) == 40
    assert not set(settings.validation) & set(settings.exclude)


def test_the_published_recipe_is_read_and_trains(repository, cases):
    published = SamSettings.from_file(
        repository / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "sam_published.json"
    )
    assert (published.temperature, published.queries, published.hard, published.diverse) == (0.5, 100, 500, 1000)
    assert (published.candidates, published.ignore_mm, published.shapes) == (20000, 3.0, [(32, 96, 96)])
    assert published.label_share == published.combined_weight == 0
    small = replace(
        TINY, label_share=0.0, optimizer="radam", combined_weight=0.0, temperature=0.5, average=0.0, learning_rate=1e-4
    )
    network = build_network(small)
    before = network.stem[0].weight.detach().clone()
    plan = recipe._plan(network, cases, [], small, None, 1)
    assert type(plan.optimizer) is torch.optim.RAdam and plan.optimizer.param_groups[0]["lr"] == 1e-4
    assert type(recipe._plan(network, cases, [], TINY, None, 1).optimizer) is torch.optim.AdamW
    # Without the third term the loss is that of the two maps alone.
    batch = BatchSource(cases, small, 0).draw(0)
    torch.manual_seed(0)
    images = Renderer(cases, small, torch.device("cpu")).images(batch)
    loss, parts = recipe.batch_loss(network, images, batch, small)
    assert float(loss.detach()) == pytest.approx(
        sum(float(parts[f"self_{name}"]) for name in ("fine", "coarse")), rel=1e-4
    )
    loss.backward()
    for _ in range(7):  # RAdam warms up without steps of its own
        plan.optimizer.step()
    assert not torch.equal(network.stem[0].weight, before)
    with pytest.raises(InputError, match="'optimizer' must be one of: adamw, radam"):
        SamSettings.from_dict({"optimizer": "sgd"})


def test_evaluation_patients_are_those_of_the_pair_list(repository, shared_data):
    settings = SamSettings.from_file(
        repository / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "sam_ct.json"
    )
    rows = (shared_data / "headneck_pairs.csv").read_text(encoding="utf-8").split()[1:]
    assert {name for row in rows for name in row.split(",")} <= set(settings.exclude)


def test_the_command_refuses_what_cannot_work(tmp_path, capsys):
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"precious")
    for words in (
        ["--data", str(tmp_path / "nowhere"), "-o", str(tmp_path / "new.pt")],
        ["--data", str(tmp_path), "-o", str(weights)],
        ["--data", str(tmp_path), "-o", str(tmp_path / "new.pt"), "--minutes", "0"],
        ["--data", str(tmp_path), "-o", str(tmp_path / "new.pt"), "--config", str(tmp_path / "none.json")],
    ):
        assert main(["train", "sam", *words]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert weights.read_bytes() == b"precious"


def test_held_out_patients_are_matched_within_their_folder(cases):
    other = [replace(case, group="other") for case in cases[:2]]
    found = validate(build_network(TINY), [*cases[2:4], *other])
    assert set(found) == {"landmarks_phantom", "landmarks_other", "warps_phantom", "warps_other"}
    assert set(validate(build_network(TINY), cases[:2])) == {"landmarks", "warps"}


def test_views_of_a_cut_folder_get_bone_back_and_those_of_others_are_cut(cases):
    case = replace(cases[0], masked=cases[0].hu)
    middle = (case.hu > 275).nonzero().float().mean(0)[2:]
    shape, high = (32, 32, 32), torch.full((3,), 31.0)
    view = View(shape, middle, torch.eye(3), torch.zeros(1, 3, 3, 3, 3), torch.zeros(3), high)

    def brightest(**changes):
        renderer = Renderer([case], replace(TINY, intensity=0.0, **changes), torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        return {round(float(renderer._image(0, view, generator).max()), 3) for _ in range(20)}

    assert len(brightest()) == 1 and len(brightest(window=[-125.0, 275.0])) == 2
    assert len(brightest(window=[-125.0, 275.0], windowed=["phantom"])) > 5
