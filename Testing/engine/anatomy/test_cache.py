"""Embeddings are computed once per content: in memory, on disk, and never from a damaged entry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine.sam_fixtures import body_points, random_model, textured_body
from samconvex.anatomy import cache as embedding_cache
from samconvex.anatomy import embedding
from samconvex.anatomy.cache import cache_folder, clear, content_key, embed_cached
from samconvex.anatomy.known import KNOWN
from samconvex.landmarks.matching import match_points


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMCONVEX_HOME", str(tmp_path))
    monkeypatch.delenv("SAMCONVEX_NO_DISK_CACHE", raising=False)
    clear()
    yield
    clear()


@pytest.fixture
def counted(monkeypatch):
    calls = []
    real = embedding_cache.embed

    def embed(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(embedding_cache, "embed", embed)
    return calls


def test_same_content_is_embedded_once(counted):
    model = random_model()
    first = embed_cached(textured_body(), model)
    assert embed_cached(textured_body(), model) is first
    assert len(counted) == 1


def test_what_need_not_be_held_is_on_disk_alone(counted):
    body, model = textured_body(), random_model()
    embed_cached(body, model, memory=False)
    assert not KNOWN.embeddings.get(f"{content_key(body, model)}-cpu")
    embed_cached(body, model)
    assert len(counted) == 1 and KNOWN.embeddings.get(f"{content_key(body, model)}-cpu")


def test_other_voxels_grid_mask_or_weights_are_another_entry():
    body, model = textured_body(), random_model()
    shifted = body.with_tensor(body.tensor, body.grid.cropped((1, 0, 0), body.grid.size))
    keys = {
        content_key(body, model),
        content_key(textured_body(1), model),
        content_key(shifted, model),
        content_key(body, random_model(1)),
        content_key(body, model, mask=body),
    }
    assert len(keys) == 5


def test_voxels_changed_in_place_are_noticed(counted):
    body, model = textured_body(), random_model()
    embed_cached(body, model)
    body.tensor[0, 0, 24, 20, 24] += 500
    embed_cached(body, model)
    assert len(counted) == 2


def test_a_disk_entry_is_the_very_embedding_that_was_computed():
    body, model = textured_body(), random_model()
    computed = embed_cached(body, model)
    clear()
    stored = embed_cached(body, model)
    assert stored is not computed
    for name in ("fine", "coarse"):
        assert torch.equal(getattr(stored, name).tensor, getattr(computed, name).tensor)
    assert torch.equal(stored.body, computed.body)


def test_disk_entry_replaces_the_network_and_matches_alike(counted):
    body, model = textured_body(), random_model()
    points = body_points(body)
    direct = match_points(embed_cached(body, model), points, embed_cached(body, model), mode="fast")
    clear()
    stored = embed_cached(body, model)
    assert len(counted) == 1 and stored.fine.grid.spacing == (4.0, 4.0, 4.0)
    again = match_points(stored, points, stored, mode="fast")
    moved = np.linalg.norm(again.points - direct.points, axis=1)
    # Two offsets that fit equally well may change places.
    assert np.percentile(moved, 90) < 0.1 and moved.max() < 1.0
    np.testing.assert_allclose(again.score, direct.score, atol=2e-3)


@pytest.mark.parametrize("damage", ["truncate", "garbage", "other content"])
def test_damaged_entry_counts_as_absent(counted, damage):
    body, model = textured_body(), random_model()
    embed_cached(body, model)
    (path,) = cache_folder().glob("*.pt")
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "garbage":
        path.write_bytes(b"garbage")
    else:
        torch.save({"format": 1}, path)
    clear()
    embed_cached(body, model)
    assert len(counted) == 2


def test_disk_stays_within_its_limit(monkeypatch):
    model = random_model()
    embed_cached(textured_body(0), model)
    (first,) = cache_folder().glob("*.pt")
    monkeypatch.setattr(embedding_cache, "DISK_BYTES", int(first.stat().st_size * 1.5))
    embed_cached(textured_body(1), model)
    (left,) = cache_folder().glob("*.pt")
    assert left != first
    assert not list(cache_folder().glob("*.partial"))


def test_unwritable_disk_only_costs_time(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("SAMCONVEX_HOME", str(blocked))
    assert embed_cached(textured_body(), random_model()).body.any()


def test_a_second_query_runs_no_network_and_builds_no_search_index(counted, monkeypatch):
    template, query, model = textured_body(0), textured_body(1), random_model()
    points = body_points(template, 1)
    match_points(template, points, query, weights=model)
    embedded = len(counted)
    monkeypatch.setattr(embedding, "SearchIndex", None)
    for _ in range(2):
        match_points(template, points, query, weights=model, mode="fast")
    assert len(counted) == embedded == 2
