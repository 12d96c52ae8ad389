"""Weights files: what is known, what is refused and how, and that nothing is ever unpickled."""

from __future__ import annotations

import argparse
import pickle

import pytest
import torch
from samconvex.cli import weights as weights_command
from samconvex.errors import InputError
from samconvex.networks import masr as masr_module
from samconvex.networks.featcnn import FeatCNN
from samconvex.networks.masr import MASRNet
from samconvex.networks.sam_compact import CHECKPOINT_FORMAT, SAMCompact
from samconvex.registration.options import unused_weights
from samconvex.settings.presets import PRESETS
from samconvex.training.loop import save_checkpoint
from samconvex.weights import models as weights
from samconvex.weights import registry
from samconvex.weights.checkpoints import read_checkpoint
from samconvex.weights.importing import import_weights


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMCONVEX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(1)
    network = SAMCompact((8, 8, 8, 8), (1, 1, 1, 1), 8, 8)
    path = tmp_path / "My network.pt"
    content = {
        "format": CHECKPOINT_FORMAT,
        "version": 1,
        "config": network.config,
        "state_dict": {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()},
        "meta": {"modality": "ct", "calibration": {"minimum_score": 0.4}},
    }
    torch.save(content, path)
    return path


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    weights_command.add_weights_arguments(parser)
    return weights_command.run_weights(parser.parse_args(words))


def test_shipped_default_is_known_intact_and_loads():
    entry = registry.find(None)
    assert entry.origin == "shipped" and entry.card is not None
    assert [verdict for _, verdict in registry.verify(weights.DEFAULT_SAM)] == ["ok"]
    model = weights.load_sam()
    assert model.sha256 == entry.sha256 and not model.network.training


def test_import_list_path_and_remove(checkpoint, home, capsys):
    assert run("import", str(checkpoint)) == 0
    model = weights.load_sam("my-network")
    assert model.kind == "sam-compact" and model.calibration == {"minimum_score": 0.4}
    assert registry.path_of("my-network").parent == home / "weights"
    run("list")
    assert "my-network" in capsys.readouterr().out
    assert run("verify") == 0
    run("remove", "my-network")
    with pytest.raises(InputError, match="neither a weights file nor a known name"):
        weights.load_sam("my-network")
    assert not (home / "weights" / "my-network.pt").exists()


def test_path_of_a_file_works_without_import(checkpoint):
    assert weights.load_sam(checkpoint).name == "My network"


def test_name_in_use_and_shipped_names_are_protected(checkpoint, tmp_path):
    import_weights(checkpoint, "mine")
    other = tmp_path / "other.pt"
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["stem.1.bias"] += 1
    torch.save(content, other)
    with pytest.raises(InputError, match="taken"):
        import_weights(other, "mine")
    import_weights(checkpoint, "mine")  # the same file again is no conflict
    with pytest.raises(InputError, match="taken by shipped"):
        import_weights(checkpoint, weights.DEFAULT_SAM)
    with pytest.raises(InputError, match="shipped with the product"):
        registry.remove(weights.DEFAULT_SAM)
    with pytest.raises(InputError, match="not a usable name"):
        import_weights(checkpoint, "../escape")


def test_changed_file_is_noticed(checkpoint):
    entry = import_weights(checkpoint, "mine")
    content = torch.load(entry.path, weights_only=True)
    content["state_dict"]["stem.1.bias"] += 1
    torch.save(content, entry.path)
    assert [verdict for _, verdict in registry.verify("mine")] == ["changed"]
    with pytest.raises(InputError, match="checksum"):
        weights.load_sam("mine")
    with pytest.raises(InputError, match="differs"):
        run("verify", "mine")


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_object_is_ever_unpickled(tmp_path):
    trace = tmp_path / "executed"
    for number, save in enumerate((torch.save, lambda x, p: p.write_bytes(pickle.dumps(x)))):
        file = tmp_path / f"bomb{number}.pt"
        save({"state_dict": _Bomb(trace)}, file)
        with pytest.raises(InputError, match="could not be read as weights"):
            weights.load_sam_file(file)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("odd", ["sparse", "compressed", "expanded", "meta"])
def test_tensors_that_no_network_has_are_refused_before_they_are_touched(tmp_path, odd):
    tensors = {
        "sparse": torch.eye(3).to_sparse(),
        "compressed": torch.eye(3).to_sparse_csr(),
        # 32 GiB of which the file holds four bytes.
        "expanded": torch.zeros(1).expand(1 << 33),
        "meta": torch.zeros(3, device="meta"),
    }
    torch.save({"state_dict": {"weight": tensors[odd]}}, tmp_path / "odd.pt")
    with pytest.raises(InputError, match=r"odd\.pt could not be read as weights; it is damaged"):
        read_checkpoint(tmp_path / "odd.pt")


def test_damaged_and_foreign_files_give_one_sentence(checkpoint, tmp_path):
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(checkpoint.read_bytes()[:-2000])
    text = tmp_path / "text.pt"
    text.write_text("not weights")
    empty = tmp_path / "empty.pt"
    empty.touch()
    foreign = tmp_path / "foreign.pt"
    torch.save({"conv.weight": torch.zeros(3, 3)}, foreign)
    newer = tmp_path / "newer.pt"
    torch.save({**torch.load(checkpoint, weights_only=True), "version": 99}, newer)
    smaller = tmp_path / "smaller.pt"
    content = torch.load(checkpoint, weights_only=True)
    del content["state_dict"]["stem.0.weight"]
    torch.save(content, smaller)
    for path in (truncated, text, empty, foreign, newer, smaller, tmp_path / "missing.pt"):
        with pytest.raises(InputError) as caught:
            weights.load_sam_file(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(InputError):
            import_weights(path, "bad")
    assert not [entry for entry in weights.known_weights() if entry.origin == "imported"]


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_weights_that_are_not_finite_are_refused(checkpoint, value):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["stem.0.weight"].view(-1)[3] = value
    torch.save(content, checkpoint)
    for read in (weights.load_sam_file, import_weights):
        with pytest.raises(InputError, match=r"My network\.pt.*not finite \(state_dict\.stem\.0\.weight\); use"):
            read(checkpoint)
    assert not [entry for entry in weights.known_weights() if entry.origin == "imported"]


def test_index_cannot_point_out_of_its_folder(home):
    (home / "weights").mkdir(parents=True)
    (home / "weights" / "index.json").write_text('{"x": {"file": "../../secret", "sha256": "0"}}')
    with pytest.raises(InputError, match="damaged"):
        weights.known_weights()


@pytest.fixture
def masr(tmp_path):
    network = MASRNet((4, 4, 4, 4), 2, 6)
    path = tmp_path / "masr.pt"
    save_checkpoint(path, network, masr_module.CHECKPOINT_FORMAT, masr_module.CHECKPOINT_VERSION, {})
    return path


def test_weights_go_to_the_network_they_were_made_for(checkpoint, masr):
    assert weights.family_of(checkpoint) == "sam" == weights.family_of(weights.DEFAULT_SAM)
    assert weights.weights_for("masr", masr) == masr and weights.weights_for("sam", masr) is None
    assert weights.weights_for("masr", checkpoint) is None and weights.weights_for("sam", None) is None
    with pytest.raises(InputError, match="other weights than samconvex-featcnn"):
        weights.load_network(FeatCNN, masr)


def test_weights_that_nothing_reads_are_reported(masr):
    assert unused_weights(masr, PRESETS["mr-ct"]) == [] == unused_weights(None, PRESETS["brain-mr"])
    assert "not used" in unused_weights(masr, PRESETS["brain-mr"])[0]


def test_descriptor_networks_are_imported_and_checked_too(masr, tmp_path):
    entry = import_weights(masr, "mine")
    assert (entry.network, entry.modality) == ("masr", "any") and weights.family_of("mine") == "masr"
    assert weights.load_network(MASRNet, "mine").config["channels"] == 6
    content = torch.load(masr, weights_only=True)
    del content["state_dict"]["squeeze"]
    damaged = tmp_path / "damaged.pt"
    torch.save(content, damaged)
    with pytest.raises(InputError, match="damaged samconvex-masr"):
        import_weights(damaged, "other")
    entry.path.write_bytes(damaged.read_bytes())
    with pytest.raises(InputError, match="checksum"):
        weights.load_network(MASRNet, "mine")
