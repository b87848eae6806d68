"""Adapters to and from the Hub, through its own client: only their files, each failure one line, tokens seen by nobody."""

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    constants,
    get_session,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,  # of the HTTP library under the client, whichever that is
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from blip2vqa.adapters.files.manifest import read_manifest
from blip2vqa.adapters.files.publication import CARD, published
from blip2vqa.adapters.storage import local
from blip2vqa.adapters.validation.safe_weights import MAX_WEIGHTS
from blip2vqa.adapters.validation.safety import ADAPTER_FILES, CONFIG, MAX_TEXT, WEIGHTS
from blip2vqa.utils.errors import InputError

if TYPE_CHECKING:
    from blip2vqa.adapters.files.adapter import Adapter  # which fetches by this module

logger = logging.getLogger(__name__)

PICKLED = "adapter_model.bin"
REVISION = re.compile(r"\w[\w./+-]*")
PATIENCE = 60
"""Seconds to wait for a word of the Hub where the client itself would wait for ever: while it uploads."""
# The last three: answers that make no sense to the client.
_FAULTS = (HTTPError, OSError, RuntimeError, ValueError, KeyError, TypeError)
_NO_NAME = "no valid name on the Hub, which is USER/NAME of letters, digits, '-', '_' and '.'"
_LOGIN = "log in by `hf auth login`, or set HF_TOKEN"


def fetch_adapter(name: str, revision: str | None = None) -> Path:
    """The folder, in the Hub's own cache, that holds what an adapter needs and no more.

    Files are compared with the Hub's checksums. Without a connection, or when the Hub fails, a whole copy in the cache serves.
    Raises `InputError` for what is no adapter, not to be had, or damaged on the way.
    """
    if "/" not in name:
        what = _named("adapter", name)
        raise InputError(f"{what}: no such folder, and no such name in the store; the Hub's are called USER/NAME")
    return _fetch(name, revision, or_folder=True)


def _fetch(name: str, revision: str | None, or_folder: bool = False) -> Path:
    """As `fetch_adapter`; `or_folder`: whether a folder could have been meant."""
    what = _named("adapter", name)
    _check_id(what, name, revision, or_folder)
    with _talking(what, revision=revision, or_folder=or_folder):
        try:
            time = constants.HF_HUB_ETAG_TIMEOUT
            listed = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=time)
        except (HTTPError, OfflineModeIsEnabled) as error:
            if not _unreachable(error):
                raise
            return _cached(what, name, revision, error, or_folder)
        siblings = {sibling.rfilename: sibling for sibling in listed.siblings or []}
        _check_listing(what, siblings)
        # The weights last: where they are in the cache, so is all the rest.
        for file in sorted(siblings.keys() & set(ADAPTER_FILES), key=lambda file: (file == WEIGHTS, file)):
            path = Path(hf_hub_download(name, file, revision=listed.sha))
            _check_sum(what, path, _hub_sum(siblings[file]))
        if revision != listed.sha:  # by its name once more, which the cache then knows when there is no connection
            with suppress(HTTPError, OSError):
                hf_hub_download(name, CONFIG, revision=revision)
    return _checked(what, name, path.parent)


def pull(name: str, revision: str | None = None, *, as_name: str | None = None, store: Path | None = None) -> Path:
    """Fetch an adapter, `USER/NAME` or `USER/NAME@REVISION`, into the store; under its own name unless another is given.

    Returns its folder there. A pull that fails leaves the store as it was. Raises `InputError`.
    """
    name, _, at = name.partition("@")
    if "/" not in name:
        raise InputError(f"{_named('adapter', name)}: is {_NO_NAME}")
    folder = _fetch(name, at or revision)
    return local.add(folder, as_name or name.split("/")[-1], store)


def push(
    adapter: "Adapter",
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    licence: str | None = None,
    base_model_id: str | None = None,
    message: str | None = None,
    revision: str | None = None,
) -> str:
    """Publish the files of an adapter's folder in one commit, with a card for strangers; returns the URL.

    Args:
        adapter: as it lies in its folder, which stays as it is.
        repo_id: `USER/NAME`, or `NAME` among one's own. One that exists keeps its visibility.
        private: whether a new one is seen by its owner alone.
        token: None: of the environment, or the login.
        licence: for the card; the Hub's name of one, such as `mit`.
        base_model_id: the base's name on the Hub, where the adapter remembers a local folder.
        revision: a branch, made if need be; None: the default one.

    Paths of this machine are left out of what is published. Raises `InputError`.
    """
    what = _named("push to", repo_id)
    _check_id(what, repo_id, revision)
    with _talking(what, writing=True):
        api = HfApi(token=token)
        repo_id = repo_id if "/" in repo_id else f"{api.whoami()['name']}/{repo_id}"
        files = published(adapter, repo_id, licence, base_model_id)
        ModelCard(files[CARD].decode()).validate(repo_type="model")  # before anything is made there
        url = str(api.create_repo(repo_id, private=private, exist_ok=True))
        there = api.model_info(repo_id, timeout=PATIENCE)
        if bool(there.private) != private:
            logger.warning("%s: it is %s already, and stays so", what, "private" if there.private else "public")
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
            there = api.model_info(repo_id, revision=revision, timeout=PATIENCE)
        stale = {sibling.rfilename for sibling in there.siblings or []} & set(ADAPTER_FILES) - files.keys()
        changes = [CommitOperationAdd(file, content) for file, content in files.items()]
        changes += [CommitOperationDelete(file) for file in sorted(stale)]
        api.create_commit(repo_id, changes, commit_message=message or "An adapter", revision=revision)
    return url


def check_push(repo_id: str, token: str | None = None) -> None:
    """Raise `InputError` unless this user may publish under this name: asked before hours of training."""
    what = _named("push to", repo_id)
    _check_id(what, repo_id)
    with _talking(what, writing=True):
        api = HfApi(token=token)
        user = api.whoami()
        owner = repo_id.split("/")[0] if "/" in repo_id else user["name"]
        if owner not in {user["name"], *(group["name"] for group in user.get("orgs") or [])}:
            raise InputError(f"{what}: the Hub knows you as {user['name']}, who may not publish as {owner}")
        if ((user.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
            raise InputError(f"{what}: the token may only read; make one that may write, and {_LOGIN}")
        with suppress(RepositoryNotFoundError):  # it will be made
            api.auth_check(repo_id if "/" in repo_id else f"{owner}/{repo_id}", write=True)


def _named(what: str, name: str) -> str:
    return f"{what} {name if name.isprintable() else repr(name)}"


def _check_id(what: str, name: str, revision: str | None = None, or_folder: bool = False) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"{what}: {'no such folder, and' if or_folder else 'is'} {_NO_NAME}") from error
    if revision is not None and (not REVISION.fullmatch(revision) or ".." in revision):
        raise InputError(f"{what}: revision {revision!r} is no name of a branch, tag or commit")


@contextmanager
def _talking(
    what: str, *, writing: bool = False, revision: str | None = None, or_folder: bool = False
) -> Iterator[None]:
    """Turn the client's failures into one line, and let it wait for no answer for ever."""
    session = get_session()
    before, session.timeout = session.timeout, PATIENCE
    try:
        yield
    except _FAULTS as error:
        raise InputError(f"{what}: {_explain(error, writing, revision, or_folder)}") from error
    finally:
        session.timeout = before


def _cause(error: BaseException) -> BaseException:
    """What the client found, behind what it says of it."""
    while isinstance(error, LocalEntryNotFoundError | RuntimeError) and error.__cause__:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _unreachable(error: BaseException) -> bool:
    """Whether there was no answer, or one of a Hub in trouble."""
    status = _status(error)
    return status is None or status >= 500 or status in (408, 429)


def _explain(error: BaseException, writing: bool, revision: str | None, or_folder: bool) -> str:
    error = _cause(error)
    status, said = _status(error), " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so that the Hub is not asked; unset it"
    if isinstance(error, LocalTokenNotFoundError) or (writing and status == 401):
        return f"nobody is logged in to the Hub, or the token is not valid any more; {_LOGIN}"
    if isinstance(error, RevisionNotFoundError):
        return f"the Hub has it, but at no revision {revision!r}"
    if status == 403 and writing:
        return f"not allowed; it takes a token that may write there: {_LOGIN}"
    if isinstance(error, RepositoryNotFoundError) or (status in (401, 403, 404) and not writing):
        none = f"{'no such folder, and ' if or_folder else ''}the Hub has none of that name, or a private one"
        return f"{none}: check the spelling, or {_LOGIN}"
    if status is not None:
        reason = error.response.reason_phrase
        return f"the Hub fails ({status} {reason}); try again later" if _unreachable(error) else f"refused: {said}"
    if isinstance(error, HTTPError):
        return f"the connection to the Hub fails ({said}); try again"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full, of {constants.HF_HUB_CACHE}; free some of it, or name another place by HF_HOME"
    hint = "; a Hub without Xet takes HF_HUB_DISABLE_XET=1" if "/xet-" in said else ""
    return f"the Hub's client fails: {said}{hint}"


def _cached(what: str, name: str, revision: str | None, error: BaseException, or_folder: bool) -> Path:
    found = [try_to_load_from_cache(name, file, revision=revision) for file in (CONFIG, WEIGHTS)]
    why = _explain(error, False, revision, or_folder)
    if not all(isinstance(path, str) for path in found):
        none = f"{'no such folder, ' if or_folder else ''}no whole copy of it in the Hub's cache"
        raise InputError(f"{what}: {none}, and {why}") from error
    logger.warning("%s: its copy in the cache is used: %s", what, why)
    return _checked(what, name, Path(found[0]).parent)


def _check_listing(what: str, siblings: dict[str, RepoSibling]) -> None:
    if CONFIG not in siblings:
        raise InputError(f"{what}: what the Hub has under this name holds no {CONFIG}, so it is not an adapter")
    if WEIGHTS not in siblings and PICKLED in siblings:
        raise InputError(
            f"{what}: its weights are pickled ({PICKLED}), which can run code; download it, and convert it by "
            "`exchange.py add FOLDER --convert_pickle`"
        )
    if WEIGHTS not in siblings:
        raise InputError(f"{what}: what the Hub has under this name holds no {WEIGHTS}")
    for file in siblings.keys() & set(ADAPTER_FILES):
        size, limit = siblings[file].size or 0, MAX_WEIGHTS if file == WEIGHTS else MAX_TEXT
        if size > limit:
            raise InputError(f"{what}: its {file} has {size:,} bytes; at most {limit:,} are read")


def _hub_sum(sibling: RepoSibling) -> str | None:
    """SHA-256 of a large file, git's SHA-1 of a small one."""
    return sibling.lfs.sha256 if sibling.lfs else sibling.blob_id


def _check_sum(what: str, path: Path, expected: str | None) -> None:
    """Remove a file from the cache, and raise `InputError`, unless it is what it should be."""
    if not expected:
        return
    with path.open("rb") as file:
        found = sha_fileobj(file).hex() if len(expected) == 64 else git_hash(file.read())
    if found != expected:
        blob = path.resolve()
        path.unlink()
        blob.unlink(missing_ok=True)
        raise InputError(
            f"{what}: {path.name} came damaged: its checksum is {found[:12]}… and not {expected[:12]}…; it is removed from the "
            "cache: try again"
        )


def _checked(what: str, name: str, folder: Path) -> Path:
    """The folder, if its weights are those that its manifest was written for."""
    files = read_manifest(folder, name).get("files")
    expected = files.get(WEIGHTS) if isinstance(files, dict) else None
    _check_sum(what, folder / WEIGHTS, expected if isinstance(expected, str) else None)
    return folder
