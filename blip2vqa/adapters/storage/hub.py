"""Adapters to and from the Hub, through its own client: only their files, each failure one line, tokens seen by nobody."""

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub as hf
from huggingface_hub import constants, errors
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from blip2vqa.adapters.files.adapter import Adapter
from blip2vqa.adapters.files.publication import published
from blip2vqa.adapters.validation.safety import CARD, CARRIED_FILES, CONFIG, WEIGHTS, read_manifest, too_large
from blip2vqa.utils.console import named
from blip2vqa.utils.errors import InputError, MachineError, collect_errors, raise_all

logger = logging.getLogger(__name__)

PICKLED = "adapter_model.bin"
PATIENCE = 60
"""Seconds to wait for a word of the Hub where the client itself would wait for ever: while it uploads."""
# The first: of the HTTP library under the client, whichever that is. The last three: answers that make no sense to the client.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_FAULTS = (errors.HTTPError, OSError, RuntimeError, ValueError, KeyError, TypeError)
_NO_NAME = "no valid name on the Hub, which is USER/NAME of letters, digits, '-', '_' and '.'"
_LOGIN = "log in by `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class _Exchange:
    """One exchange with the Hub: what a message about it begins with, and what its failures mean to the user."""

    action: str
    repo_id: str
    revision: str | None = None
    writing: bool = False
    or_local: bool = False
    """Whether the user may have meant a folder or a name in the store; failures then say that there is none."""

    @property
    def what(self) -> str:
        """Such as `adapter USER/NAME`."""
        return f"{self.action} {self.repo_id if self.repo_id.isprintable() else repr(self.repo_id)}"

    @property
    def no_folder(self) -> str:
        return "no such folder, and " if self.or_local else ""

    def check_names(self) -> None:
        """Raise `InputError` for what cannot be a repository's id or a revision."""
        if "/" not in self.repo_id and not self.writing:
            reason = "no such folder, and no such name in the store; the Hub's are called USER/NAME"
            raise InputError(f"{self.what}: {reason if self.or_local else f'is {_NO_NAME}'}")
        try:
            validate_repo_id(self.repo_id)
        except errors.HFValidationError as error:
            raise InputError(f"{self.what}: {self.no_folder or 'is '}{_NO_NAME}") from error
        if self.revision is not None and (not re.fullmatch(r"\w[\w./+-]*", self.revision) or ".." in self.revision):
            raise InputError(f"{self.what}: revision {self.revision!r} is no name of a branch, tag or commit")

    @contextmanager
    def talking(self) -> Iterator["_Exchange"]:
        """Turn the client's failures into one line, and let it wait no longer than `PATIENCE` for an answer."""
        self.check_names()
        session = hf.get_session()
        before, session.timeout = session.timeout, PATIENCE
        try:
            yield self
        except _FAULTS as error:
            kind = MachineError if getattr(error, "errno", None) in _DISK else InputError
            raise kind(f"{self.what}: {self.explain(error)}") from error
        finally:
            session.timeout = before

    def explain(self, error: BaseException) -> str:
        """Say in one line what a failure means and what to do."""
        while isinstance(error, errors.LocalEntryNotFoundError | RuntimeError) and error.__cause__:
            error = error.__cause__
        status, said = _status(error), " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, errors.OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, so that the Hub is not asked; unset it"
        if isinstance(error, errors.LocalTokenNotFoundError) or (self.writing and status == 401):
            return f"nobody is logged in to the Hub, or the token is not valid any more; {_LOGIN}"
        if isinstance(error, errors.RevisionNotFoundError):
            return f"the Hub has it, but at no revision {self.revision!r}"
        if status == 403 and self.writing:
            return f"not allowed; it takes a token that may write there: {_LOGIN}"
        if isinstance(error, errors.RepositoryNotFoundError) or (status in (401, 403, 404) and not self.writing):
            none = f"{self.no_folder}the Hub has none of that name, or a private one"
            return f"{none}: check the spelling, or {_LOGIN}"
        if status is not None:
            reason = error.response.reason_phrase
            return f"the Hub fails ({status} {reason}); try again later" if _unreachable(error) else f"refused: {said}"
        if isinstance(error, errors.HTTPError):
            return f"the connection to the Hub fails ({said}); try again"
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk is full, of {constants.HF_HUB_CACHE}; free some of it, or name another place by HF_HOME"
        if getattr(error, "errno", None) in _DISK:
            return f"{constants.HF_HUB_CACHE} cannot be written: {error.strerror}; name another place by HF_HOME"
        hint = "; a Hub without Xet takes HF_HUB_DISABLE_XET=1" if "/xet-" in said else ""
        return f"the Hub's client fails: {said}{hint}"


def fetch_adapter(name: str, revision: str | None = None, *, or_local: bool = False) -> Path:
    """Fetch an adapter's files, and no others, into the Hub's own cache; return the folder there.

    Files are compared with the Hub's checksums. Without a connection, or when the Hub fails, a whole copy in the cache serves.
    `or_local`: see `_Exchange`. Raises `InputError` for what is no adapter, not reachable, or damaged on the way.
    """
    with _Exchange("adapter", name, revision, or_local=or_local).talking() as request:
        try:
            time = constants.HF_HUB_ETAG_TIMEOUT
            listed = hf.HfApi().model_info(name, revision=revision, files_metadata=True, timeout=time)
        except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
            if not _unreachable(error):
                raise
            return _cached(request, error)
        siblings = {sibling.rfilename: sibling for sibling in listed.siblings or []}
        _check_listing(request.what, siblings)
        # The weights last: where they are in the cache, so is all the rest.
        for file in sorted(siblings.keys() & set(CARRIED_FILES), key=lambda file: (file == WEIGHTS, file)):
            path = Path(hf.hf_hub_download(name, file, revision=listed.sha))
            large = siblings[file].lfs
            _check_sum(request.what, path, large.sha256 if large else siblings[file].blob_id)
        if revision != listed.sha:  # by its name once more, which the cache then knows when there is no connection
            with suppress(errors.HTTPError, OSError):
                hf.hf_hub_download(name, CONFIG, revision=revision)
    return _checked(request.what, path.parent)


def push(
    adapter: Adapter,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    licence: str | None = None,
    base_model_id: str | None = None,
    revision: str | None = None,
) -> str:
    """Publish the files of an adapter's folder in one commit, with a card for strangers; return the URL.

    Paths of this machine are left out of what is published; the adapter's folder stays as it is.

    Args:
        repo_id: USER/NAME, or NAME among one's own. One that exists keeps its visibility.
        private: whether a new repository is seen by its owner alone.
        token: None: from the environment, or the login.
        licence: for the card; the Hub's name of one, such as `mit`.
        base_model_id: the base's name on the Hub, where the adapter remembers a local folder.
        revision: a branch, made if need be; None: the default one.

    Raises `InputError` for an adapter that others could not load, and for what the Hub refuses.
    """
    with _Exchange("push to", repo_id, revision, writing=True).talking() as request:
        api = hf.HfApi(token=token)
        repo_id = repo_id if "/" in repo_id else f"{api.whoami()['name']}/{repo_id}"
        files = published(adapter, repo_id, licence, base_model_id)
        hf.ModelCard(files[CARD].decode()).validate(repo_type="model")  # before anything is made there
        url = str(api.create_repo(repo_id, private=private, exist_ok=True))
        there = api.model_info(repo_id, timeout=PATIENCE)
        if bool(there.private) != private:
            state = "private" if there.private else "public"
            logger.warning("%s: it is %s already, and stays so", request.what, state)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
            there = api.model_info(repo_id, revision=revision, timeout=PATIENCE)
        stale = {sibling.rfilename for sibling in there.siblings or []} & set(CARRIED_FILES) - files.keys()
        changes = [hf.CommitOperationAdd(file, content) for file, content in files.items()]
        changes += [hf.CommitOperationDelete(file) for file in sorted(stale)]
        api.create_commit(repo_id, changes, commit_message="An adapter", revision=revision)
    return url


def check_push(repo_id: str, token: str | None = None) -> None:
    """Raise `InputError` unless this user may publish under this name: asked before hours of training."""
    with _Exchange("push to", repo_id, writing=True).talking() as request:
        api = hf.HfApi(token=token)
        user = api.whoami()
        owner = repo_id.split("/")[0] if "/" in repo_id else user["name"]
        if owner not in {user["name"], *(group["name"] for group in user.get("orgs") or [])}:
            raise InputError(f"{request.what}: the Hub knows you as {user['name']}, who may not publish as {owner}")
        if ((user.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
            raise InputError(f"{request.what}: the token may only read; make one that may write, and {_LOGIN}")
        with suppress(errors.RepositoryNotFoundError):  # it will be made
            api.auth_check(repo_id if "/" in repo_id else f"{owner}/{repo_id}", write=True)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _unreachable(error: BaseException) -> bool:
    """Tell whether there was no answer, or one of a Hub in trouble."""
    status = _status(error)
    return status is None or status >= 500 or status in (408, 429)


def _cached(request: _Exchange, error: BaseException) -> Path:
    """Find the folder of a whole copy in the Hub's cache. Raises `InputError` where there is none."""
    found = [hf.try_to_load_from_cache(request.repo_id, file, revision=request.revision) for file in (CONFIG, WEIGHTS)]
    why = request.explain(error)
    if not all(isinstance(path, str) for path in found):
        none = f"{'no such folder, ' if request.or_local else ''}no whole copy of it in the Hub's cache"
        raise InputError(f"{request.what}: {none}, and {why}") from error
    logger.warning("%s: its copy in the cache is used: %s", request.what, why)
    return _checked(request.what, Path(found[0]).parent)


def _check_listing(what: str, siblings: dict[str, RepoSibling]) -> None:
    if CONFIG not in siblings:
        below = sorted(file.removesuffix(f"/{CONFIG}") for file in siblings if file.endswith(f"/{CONFIG}"))
        hint = (
            f"; it has one in {', '.join(below[:8])}: download that folder, and name it"
            if below
            else ", so it is not an adapter"
        )
        raise InputError(f"{what}: what the Hub has under this name holds no {CONFIG}{hint}")
    if WEIGHTS not in siblings and PICKLED in siblings:
        raise InputError(
            f"{what}: its weights are pickled ({PICKLED}), which can run code; download it, and convert it by "
            f"`{named('exchange')} add FOLDER --convert_pickle`"
        )
    if WEIGHTS not in siblings:
        raise InputError(f"{what}: what the Hub has under this name holds no {WEIGHTS}")
    for file in siblings.keys() & set(CARRIED_FILES):
        if problem := too_large(file, siblings[file].size or 0):
            raise InputError(f"{what}: its {file} {problem}")


def _check_sum(what: str, path: Path, expected: str | None) -> None:
    """Remove a file from the cache, and raise `InputError`, unless it has the SHA-256 or, if small, git's SHA-1 expected."""
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


def _checked(what: str, folder: Path) -> Path:
    """Return the folder, unless its weights are not those that its manifest was written for."""
    problems: list[str] = []
    manifest = collect_errors(problems, read_manifest, folder)
    raise_all([f"{what}: {problem}" for problem in problems])
    _check_sum(what, folder / WEIGHTS, manifest.get("files", {}).get(WEIGHTS))
    return folder
