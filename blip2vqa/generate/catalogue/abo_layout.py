"""Find the parts of the Amazon Berkeley Objects archive in any of its layouts."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from blip2vqa.utils.errors import InputError, collect_errors, raise_all

LISTINGS_FILE = re.compile(r"listings_(\w+)\.json(\.gz)?")
PART = re.compile(r"listings|metadata|images|small|original|abo-(listings|images)[\w.-]*")  # the archive's own folders
LISTINGS_IN = ("listings/metadata", "listings", "metadata", ".")
TABLE_IN = ("images/metadata", "images", "metadata", ".")
TABLE_NAMES = ("images.csv.gz", "images.csv")
PICTURES_IN = ("small", "original", ".", "images/small", "images/original", "images")


@dataclass(frozen=True)
class Archive:
    """The paths of the archive's parts."""

    listings: list[Path]
    """In their order."""
    images_table: Path
    """Table of image ids and paths."""
    image_dir: Path
    """Folder that those paths start from."""


def find_archive(abo_dir: str | Path, image_dir: str | Path | None = None) -> Archive:
    """Find the archive's parts in `abo_dir`, with the listings and the table gzipped or not.

    They may lie as shipped (listings/metadata, images/metadata, images/small or images/original), in folders named after the
    downloads (abo-listings, abo-images-small), or flat; `abo_dir` may be one folder too high or inside the archive.
    `image_dir` names another folder of the pictures.

    Raises `InputError`, with what was looked for and where, for a part that is not found or found twice.
    """
    folder = Path(abo_dir)
    if not folder.is_dir():
        is_tar = folder.is_file() and ".tar" in folder.name
        what = f"an archive; unpack it (tar -xf {folder.name}) and name the folder" if is_tar else "no such folder"
        raise InputError(f"--abo_dir {abo_dir}: {what}")
    if image_dir is not None and not Path(image_dir).is_dir():
        raise InputError(f"--image_dir {image_dir}: no such folder")
    problems: list[str] = []
    levels = _levels(folder)
    listings = collect_errors(problems, _find_listings, folder, levels)
    table = collect_errors(problems, _find_table, folder, levels, image_dir)
    if image_dir is not None:
        pictures = _pictures_in(Path(image_dir)) or Path(image_dir)
    elif table is not None and not (pictures := _pictures_beside(table)):
        problems.append(
            f"{table}: no pictures found beside it; looked for the folders 00 to ff in images/small, images/original, small "
            "and original; unpack abo-images-small.tar there, or name the folder by --image_dir"
        )
    raise_all(problems)
    return Archive(listings, table, pictures)


def _levels(folder: Path) -> list[list[Path]]:
    """List folders to look in, the likelier first: `folder`, those in it, and, inside the archive, those around it."""
    levels = [[folder], _folders(folder)]
    around = folder.resolve()
    while PART.fullmatch(around.name):
        around = around.parent
        levels += [[around], [part for part in _folders(around) if PART.fullmatch(part.name)]]
    return levels


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and os.path.isdir(path))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error


def _find_listings(folder: Path, levels: list[list[Path]]) -> list[Path]:
    for level in levels:
        places = {
            place.resolve(): place for base in level for inside in LISTINGS_IN if os.path.isdir(place := base / inside)
        }
        found = {place: files for place in places.values() if (files := _listings_of(place))}
        if len(found) > 1:
            named = ", ".join(map(str, found))
            raise InputError(f"--abo_dir {folder}: listings in {len(found)} places ({named}); name the folder of one")
        if found:
            return next(iter(found.values()))
    looked = "listings_*.json.gz or listings_*.json in listings/metadata, listings, metadata or the folder itself"
    raise InputError(_not_found(folder, levels, "listings", looked))


def _listings_of(place: Path) -> list[Path]:
    """Find the files of listings in one folder, 0 to 9 before a to f; of one that is there twice, the packed one."""
    files = {}
    for path in sorted(place.glob("listings_*.json*")):  # .json before .json.gz
        if (match := LISTINGS_FILE.fullmatch(path.name)) and path.is_file():
            name = match[1]
            files[(0, int(name), name) if name.isdecimal() else (1, 0, name)] = path
    return [files[key] for key in sorted(files)]


def _find_table(folder: Path, levels: list[list[Path]], image_dir: str | Path | None) -> Path:
    if image_dir is not None:  # the archive of the pictures, with their table, may lie elsewhere
        levels = [*levels, *_levels(Path(image_dir))]
    found = []
    for level in levels:
        places = (base / inside / name for base in level for inside in TABLE_IN for name in TABLE_NAMES)
        found += [path for path in places if os.path.isfile(path)]
        # The download of small pictures and that of original ones both hold the table; the small pictures are preferred.
        beside = [(pictures.name != "small", table) for table in found if (pictures := _pictures_beside(table))]
        if beside:
            return min(beside, key=lambda pair: pair[0])[1]
    if found:
        return found[0]
    looked = "images.csv.gz or images.csv in images/metadata, images, metadata or the folder itself"
    raise InputError(_not_found(folder, levels, "table of pictures", looked))


def _pictures_beside(table: Path) -> Path | None:
    """Find the pictures in the archive that a table belongs to."""
    inside_archive = table.parent.name in ("metadata", "images")
    return (inside_archive and _pictures_in(table.parent.parent)) or _pictures_in(table.parent)


def _pictures_in(folder: Path) -> Path | None:
    """Find the first place in `folder` with folders 00 to ff, which the paths of the table start from."""
    places = (folder / inside for inside in PICTURES_IN)
    return next((place for place in places if any(map(os.path.isdir, place.glob("[0-9a-f][0-9a-f]")))), None)


def _not_found(folder: Path, levels: list[list[Path]], what: str, looked: str) -> str:
    around = " and around it" if len(levels) > 2 else ""
    problem = f"--abo_dir {folder}: no {what} found; looked for {looked}, there, one folder down{around}"
    packed = sorted(path for level in levels for base in level for path in base.glob("abo-*.tar*"))
    if packed:
        return f"{problem}; unpack first: {', '.join(f'tar -xf {path} -C {path.parent}' for path in dict.fromkeys(packed))}"
    return f"{problem}; unpack abo-listings.tar and abo-images-small.tar there"
