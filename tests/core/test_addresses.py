import pathlib

import pytest

from ssldiff_jax.core import addresses, schema

ADDRESSES = [
    "gs://bucket/run",
    "s3://bucket/run",
    "az://container/run",
    "memory://run",
    "file:///run",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_an_address_is_refused_in_a_line_that_names_it(address, kind):
    with pytest.raises(schema.ConfigError) as caught:
        addresses.require_folders({"one": "/data", "other": kind(address)})
    (line,) = str(caught.value).splitlines()
    # Of more than two slashes pathlib keeps one as well.
    scheme, _, path = address.partition("://")
    assert line.startswith("other must be the path of a folder that all hosts share")
    assert f"got {scheme}://{path.lstrip('/')}; " in line
    assert "mounted by gcsfuse" in line
    assert "--config.runtime.checkpoints=gs://bucket/run" in line


@pytest.mark.parametrize(
    "path",
    ["", "/data/run", "runs/demo", "~/run", "a:b/c", "C:/run", "/mnt/gs:/bucket", "gs", "x:y"],
)
def test_paths_are_no_addresses(path):
    addresses.require_folders({"workdir": path, "other": pathlib.Path(path)})
