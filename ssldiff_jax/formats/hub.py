"""Weights on the Hugging Face Hub, by their address: `hf://org/name[@revision][/file or folder]`.

They are read from the cache of huggingface_hub, which brings what it lacks, and which its own
variables steer: HF_HOME (where it is), HF_HUB_OFFLINE, HF_TOKEN, HF_ENDPOINT. Weights are brought,
and the texts beside them; code that lies there is not, and nothing is executed.
"""

import dataclasses
import functools
import glob
import hashlib
import logging
import os
import pathlib
import re
import types
import urllib.parse

from ssldiff_jax.core import exhausted
from ssldiff_jax.formats import hub_files
from ssldiff_jax.formats.torch_zip import WeightsError

_LOG = logging.getLogger(__name__)

_DEFAULT = "main"
# Those of pull requests and conversions are written with their slashes.
_ADDRESS = re.compile(
    r"hf:/+(?P<repo>[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?(?:/+(?P<path>.*?))?/*"
)
_OTHERS = ("datasets", "spaces", "buckets", "kernels")
_FORM = "hf://org/name[@revision][/file or folder]"


@dataclasses.dataclass(frozen=True)
class Address:
    """A repository of a model, a branch, tag or commit of it, and a file or folder in it."""

    repo: str
    revision: str = _DEFAULT
    path: str = ""

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> "Address":
        """Raises WeightsError for what is no such address."""
        # pathlib makes one slash of two.
        match = _ADDRESS.fullmatch(os.fspath(text))
        if match is None or match["repo"].partition("/")[0] in _OTHERS:
            raise WeightsError(f"expected the address of a model, {_FORM}, got {os.fspath(text)}")
        revision = urllib.parse.unquote(match["revision"] or _DEFAULT)
        return cls(match["repo"], revision, match["path"] or "")

    def at(self, path: str) -> str:
        """The address of another file or folder beside it."""
        return str(dataclasses.replace(self, path=path))

    def __str__(self) -> str:
        name = self.revision
        if not name.startswith("refs/"):
            name = urllib.parse.quote(name, safe="")
        at = "" if name == _DEFAULT else f"@{name}"
        return f"hf://{self.repo}{at}" + (f"/{self.path}" if self.path else "")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A file or folder of one commit on this machine; `address` names the commit."""

    address: Address
    path: pathlib.Path

    @property
    def content(self) -> str:
        """A 12-digit hash of what its weights and configs are known by, whatever else came with a
        later commit: a text that was corrected makes no other model."""
        is_file = self.path.is_file()
        known = [
            # The cache names content by its hash, and links to it where it can.
            (file.name, file.resolve().name if file.is_symlink() else file.stat().st_size)
            for file in ([self.path] if is_file else self._wanted())
            if is_file or hub_files.decides(file.name)
        ]
        return hashlib.sha256(repr(known).encode()).hexdigest()[:12]

    def _wanted(self) -> list[pathlib.Path]:
        """The files of a folder that were brought for it, and not for another address of the same
        commit, which lie beside them."""
        parts = pathlib.PurePosixPath(self.address.path).parts
        commit = self.path.parents[len(parts) - 1] if parts else self.path
        found = (p.relative_to(commit).as_posix() for p in commit.rglob("*") if p.is_file())
        names = hub_files.wanted(sorted(found), self.address.path, self.address.at)
        return [commit / name for name in sorted(names)]


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether it is an address on the Hub, also one that pathlib has made a path of."""
    return bool(re.match(r"hf:/", os.fspath(path)))


def local(path: str | os.PathLike[str]) -> pathlib.Path:
    """Where a file or folder lies on this machine: that of an address in the cache, brought there
    if it is missing; any other is itself.

    Raises WeightsError for an address whose weights cannot be had, in a line that says why.
    """
    if not is_address(path):
        return pathlib.Path(path).expanduser()
    return snapshot(Address.parse(path)).path


def pinned(path: str | os.PathLike[str]) -> str:
    """An address with its commit instead of a branch or tag; any other path is itself.

    Raises WeightsError as `local` does.
    """
    return str(snapshot(Address.parse(path)).address) if is_address(path) else os.fspath(path)


def noted(**paths: str) -> dict[str, str]:
    """Of the paths that are addresses, with their commits, by key: what a stage notes of weights
    that it read.

    Raises WeightsError as `local` does.
    """
    return {key: pinned(path) for key, path in paths.items() if is_address(path)}


# One commit throughout a process, whatever moves the branch meanwhile.
@functools.lru_cache(256)
def snapshot(address: Address) -> Snapshot:
    """The weights of an address and the texts beside them, on this machine.

    Raises WeightsError as `local` does, DiskFullError where there is no room for them.
    """
    library = _library(address)
    try:
        folder = _brought(library, address)
    except WeightsError:
        raise
    except Exception as error:  # of the library, its client, and the disk
        folder = _cached_after(library, address, error)
    commit = dataclasses.replace(address, revision=folder.name)
    path = folder / address.path
    if not path.exists():
        raise WeightsError(f"{address} is only in part in the cache, {folder}")
    if address.revision != commit.revision:
        _LOG.info("%s is %s", address, commit)
    return Snapshot(commit, path)


def _library(address: Address) -> types.ModuleType:
    # Not at the top: it is optional.
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise WeightsError(
            f"{address} needs the package huggingface_hub, which is not installed: "
            "pip install huggingface_hub"
        ) from error
    return huggingface_hub


def _brought(library: types.ModuleType, address: Address) -> pathlib.Path:
    """The folder of a commit in the cache, with what is wanted of it."""
    about = library.HfApi().model_info(address.repo, revision=address.revision)
    names = [file.rfilename for file in about.siblings or ()]
    wanted = hub_files.wanted(names, address.path, address.at)
    hub_files.warn_of_code(address, names, address.path)
    pickles = [name for name in wanted if name.endswith(hub_files.PICKLES)]
    if pickles and address.path not in names:
        _LOG.warning(
            "%s: there are no safetensors; of %s, a pickle, tensors are read and nothing is run",
            address, hub_files.listed(pickles),
        )  # fmt: skip
    folder = library.snapshot_download(
        address.repo,
        # By its name, so that the cache knows it without a network.
        revision=address.revision,
        allow_patterns=[glob.escape(name) for name in wanted],
    )
    return pathlib.Path(folder)


def _cached_after(library: types.ModuleType, address: Address, error: Exception) -> pathlib.Path:
    """The folder of a commit in the cache, where the Hub could not be asked.

    Raises WeightsError where it could and refused, or where the cache lacks it.
    """
    line = " ".join(str(error).split()) or type(error).__name__
    short = exhausted.shortage(error)
    if short is not None and short.of == "disk":
        where = library.constants.HF_HUB_CACHE
        raise exhausted.DiskFullError(f"{address}", short.needed, folder=where) from error
    if not _is_unreachable(library, error):
        raise WeightsError(_refusal(library, address, line, error)) from error
    is_offline = isinstance(error, library.errors.OfflineModeIsEnabled)
    folder = _cached(library, address)
    if folder is None:
        cache = library.constants.HF_HUB_CACHE
        why = "HF_HUB_OFFLINE forbids asking the Hub" if is_offline else f"no network ({line:.200})"
        raise WeightsError(f"{address} must be in the cache {cache}, where it is not: {why}") from (
            error
        )
    if not is_offline:
        _LOG.warning("%s is taken from the cache: no network (%.200s)", address, line)
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    hub_files.wanted(names, address.path, address.at)  # raises where it is of no use
    return folder


def _cached(library: types.ModuleType, address: Address) -> pathlib.Path | None:
    try:
        folder = library.snapshot_download(
            address.repo, revision=address.revision, local_files_only=True
        )
    except library.errors.LocalEntryNotFoundError as error:
        # Newer releases say that there is more in the repository: all that was wanted may be here.
        folder = getattr(error, "snapshot_path", None)
    return None if folder is None else pathlib.Path(folder)


def _is_unreachable(library: types.ModuleType, error: Exception) -> bool:
    """Whether nobody answered, or a server that fails."""
    errors = library.errors
    if isinstance(error, errors.HfHubHTTPError):
        return error.response is not None and error.response.status_code >= 500
    ours = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)
    # Its clients, httpx or requests by its release, have roots of their own.
    client = type(error).__module__.partition(".")[0]
    return isinstance(error, (*ours, ConnectionError, TimeoutError)) or client in (
        "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3",
    )  # fmt: skip


def _refusal(library: types.ModuleType, address: Address, line: str, error: Exception) -> str:
    """Why the Hub does not give it."""
    errors, page = library.errors, f"{library.constants.ENDPOINT}/{address.repo}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{address} is given to those alone who asked for it: ask on {page}, then set HF_TOKEN "
            "to a token of that account"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{address}: no such model at {page}, or a private one: HF_TOKEN must be a token of an "
            "account that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{address}: {page} has no branch, tag or commit {address.revision!r}"
    return f"{address}: expected an answer of {page}, got {type(error).__name__}: {line:.200}"
