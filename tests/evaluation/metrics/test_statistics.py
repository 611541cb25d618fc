import dataclasses
import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ssldiff_jax.core.moments import Moments
from ssldiff_jax.evaluation.metrics import frechet, statistics

EXTRACTION = statistics.Extraction("dino", "0123456789abcdef" * 4, 6, "JPEG 90", 256)


@pytest.fixture
def written(tmp_path):
    features = np.random.default_rng(0).normal(size=(100, 6))
    path = tmp_path / "reference.safetensors"
    made = statistics.Statistics(EXTRACTION, "TCGA-BRCA, test", Moments.of(features))
    return path, statistics.write(path, made), made


def header(path):
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]


def test_statistics_come_back_to_the_bit(written):
    path, digest, made = written
    found = statistics.read(path, EXTRACTION, digest)
    assert (found.extraction, found.dataset) == (EXTRACTION, "TCGA-BRCA, test")
    np.testing.assert_array_equal(found.moments.pack(), made.moments.pack())
    assert frechet.frechet(found.moments, made.moments) == pytest.approx(0, abs=1e-9)
    told = json.loads(header(path)["manifest"])
    assert (told["count"], told["image_format"], told["extractor"]) == (100, "JPEG 90", "dino")
    assert statistics.write(path, made) == digest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("extractor", "uni2"),
        ("digest", "f" * 64),
        ("dim", 8),
        ("image_format", "PNG"),
        ("image_px", 512),
    ],
)
def test_statistics_of_another_extraction_are_refused(written, field, value):
    expected = dataclasses.replace(EXTRACTION, **{field: value})
    told = rf"reference.safetensors: expected {field} {value!r}, got {getattr(EXTRACTION, field)!r}"
    with pytest.raises(ValueError, match=told):
        statistics.read(written[0], expected)


def test_numbers_and_manifests_that_were_changed_are_refused(written):
    path, digest, _ = written
    tensors, told = load_file(path), header(path)
    save_file(tensors | {"mean": tensors["mean"] + 1e-12}, path, told)
    with pytest.raises(ValueError, match=r"reference.safetensors: expected sha256 .*…, got"):
        statistics.read(path)
    changed = told["manifest"].replace("TCGA", "TCIA")
    save_file(tensors, path, told | {"manifest": changed})
    with pytest.raises(ValueError, match="expected sha256"):
        statistics.read(path)
    # Its own hash made to fit: the published one tells.
    save_file(tensors, path, told | {"manifest": changed, "sha256": _sha256(changed, tensors)})
    assert statistics.read(path).dataset == "TCIA-BRCA, test"
    with pytest.raises(ValueError, match=f"expected sha256 {digest[:12]}…, got"):
        statistics.read(path, sha256=digest)


def _sha256(manifest, tensors):
    return statistics._digest(manifest, tensors)


@pytest.mark.parametrize(
    ("told", "tensors", "message"),
    [
        ({"dim": 7}, {}, "expected tensors"),
        ({"count": 99}, {}, "expected one count"),
        ({"count": "100"}, {}, "expected a manifest of"),
        ({"surplus": 1}, {}, "expected a manifest of"),
        ({}, {"mean": np.full(6, np.nan)}, "expected finite moments"),
        ({}, {"surplus": np.zeros(1)}, "expected tensors"),
    ],
)
def test_files_that_fit_their_hash_and_nothing_else_are_refused(written, told, tensors, message):
    path = written[0]
    tensors = load_file(path) | tensors
    kept = header(path)
    manifest = json.dumps(json.loads(kept["manifest"]) | told)
    kept |= {"manifest": manifest, "sha256": _sha256(manifest, tensors)}
    save_file(tensors, path, kept)
    with pytest.raises(ValueError, match=f"reference.safetensors: {message}") as caught:
        statistics.read(path)
    assert "\n" not in str(caught.value)


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"{}", "pickle"])
def test_other_files_are_refused_and_not_executed(tmp_path, content):
    path, mark = tmp_path / "other.safetensors", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Payload(mark)) if content == "pickle" else content)
    with pytest.raises(ValueError, match=r"other.safetensors: expected a safetensors file"):
        statistics.read(path)
    assert not mark.exists()
    save_file({"x": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="expected 'ssldiff_jax statistics 1', got format None"):
        statistics.read(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        statistics.read(tmp_path / "nowhere.safetensors")


def test_moments_of_another_dimension_are_not_written(tmp_path):
    made = statistics.Statistics(EXTRACTION, "x", Moments(4))
    with pytest.raises(ValueError, match="expected dim 6, got 4"):
        statistics.write(tmp_path / "x.safetensors", made)
