"""The product archive is found in every layout; what is not found is named."""

import re
from pathlib import Path

import pytest

from blip2vqa.generate.catalogue.abo_layout import find_archive
from blip2vqa.utils.errors import InputError
from helpers.abo_archive import lines, listing, write_archive, write_packed
from helpers.abo_listings import COUNTS, FILES, PRODUCTS, as_shipped, drawn, problem, read


def unpacked(folder):
    return write_archive(folder, FILES, drawn(), packed=False)


def in_folders_of_the_downloads(folder):
    return write_archive(
        folder, FILES, drawn(), listings="abo-listings/listings/metadata", images="abo-images-small/images"
    )


def one_too_high(folder):
    write_archive(folder / "ABO", FILES, drawn())
    return folder


def at_the_listings(folder):
    return write_archive(folder, FILES, drawn()) / "listings"


def at_the_listings_metadata(folder):
    return write_archive(folder, FILES, drawn()) / "listings" / "metadata"


def at_the_pictures(folder):
    return write_archive(folder, FILES, drawn()) / "images" / "small"


def at_one_download(folder):
    return in_folders_of_the_downloads(folder) / "abo-listings"


def at_the_other_download(folder):
    return in_folders_of_the_downloads(folder) / "abo-images-small"


def flat(folder):
    write_archive(folder, FILES, drawn())
    for path in [*(folder / "listings/metadata").iterdir(), folder / "images/metadata/images.csv.gz"]:
        path.rename(folder / path.name)
    return folder


def originals(folder):
    return write_archive(folder, FILES, drawn(), size="original")


def without_metadata_folders(folder):
    write_archive(folder, FILES, drawn(), packed=False, listings="listings")
    (folder / "images/metadata/images.csv").rename(folder / "images/images.csv")
    return folder


LAYOUTS = [
    as_shipped, unpacked, in_folders_of_the_downloads, one_too_high, at_the_listings, at_the_listings_metadata,
    at_the_pictures, at_one_download, at_the_other_download, flat, originals, without_metadata_folders,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_the_same_products(tmp_path, layout):
    folder = layout(tmp_path / "archive")
    products, counts = read(folder)
    assert products == PRODUCTS
    assert counts == COUNTS
    image_dir = find_archive(folder).image_dir
    assert image_dir.name == ("original" if layout is originals else "small")
    assert all((image_dir / name).is_file() for product in products for name in product.images)


def test_a_relative_path_inside_the_archive(tmp_path, monkeypatch):
    monkeypatch.chdir(at_the_listings(tmp_path / "archive"))
    assert read(Path("."))[0] == PRODUCTS


def test_small_pictures_go_before_originals(tmp_path):
    folder = write_archive(tmp_path, FILES, drawn())
    write_archive(tmp_path, [], drawn(), size="original")
    assert find_archive(folder).image_dir == folder / "images/small"


def test_small_pictures_go_before_originals_in_their_own_download(tmp_path):
    in_folders_of_the_downloads(tmp_path)
    write_archive(tmp_path, [], drawn(), images="abo-images-original/images", size="original")
    archive = find_archive(tmp_path)
    assert archive.image_dir == tmp_path / "abo-images-small/images/small"
    assert archive.images_table == tmp_path / "abo-images-small/images/metadata/images.csv.gz"


@pytest.mark.parametrize("inside", ["images/small", "images", "."])
def test_pictures_elsewhere_bring_their_table(tmp_path, inside):
    write_archive(tmp_path / "pictures", [], drawn())
    write_packed(tmp_path / "words/listings_0.json", lines(FILES[0] + FILES[1]), packed=True)
    image_dir = tmp_path / "pictures" / inside
    assert read(tmp_path / "words", image_dir) == (PRODUCTS, COUNTS)
    assert find_archive(tmp_path / "words", image_dir).image_dir == tmp_path / "pictures/images/small"


def test_a_folder_of_pictures_of_another_layout_is_taken_at_its_word(tmp_path):
    folder = as_shipped(tmp_path / "archive")
    (tmp_path / "mine").mkdir()
    assert find_archive(folder, tmp_path / "mine").image_dir == tmp_path / "mine"


def test_a_file_there_packed_and_unpacked_is_read_once(tmp_path):
    folder = as_shipped(tmp_path)
    write_packed(folder / "listings/metadata/listings_1.json", b"cut o", packed=False)
    assert read(folder) == (PRODUCTS, COUNTS)


def test_files_in_natural_order_and_no_others(tmp_path):
    names = ["10", "2", "f", "0", "a"]
    for name in names:
        write_packed(
            tmp_path / f"listings/metadata/listings_{name}.json", lines([listing(f"B{name}", "m")]), packed=True
        )
    write_packed(tmp_path / "listings/metadata/listings_0 (1).json", b"a second download", packed=False)
    write_packed(tmp_path / "listings/metadata/._listings_0.json", b"a Mac's own", packed=False)
    write_archive(tmp_path, [], drawn(["m"]))
    assert [product.item_id for product in read(tmp_path)[0]] == ["B0", "B2", "B10", "Ba", "Bf"]


def test_nothing_found_says_what_was_looked_for_and_where(tmp_path):
    (tmp_path / "ABO" / "words").mkdir(parents=True)
    with pytest.raises(InputError) as raised:
        find_archive(tmp_path / "ABO")
    listings, table = raised.value.problems
    assert listings == (
        f"--abo_dir {tmp_path / 'ABO'}: no listings found; looked for listings_*.json.gz or listings_*.json in "
        "listings/metadata, listings, metadata or the folder itself, there, one folder down; unpack abo-listings.tar and "
        "abo-images-small.tar there"
    )
    assert "no table of pictures found; looked for images.csv.gz or images.csv in images/metadata" in table


def test_archives_not_unpacked_are_named(tmp_path):
    (tmp_path / "abo-listings.tar").touch()
    (tmp_path / "abo-images-small.tar").touch()
    with pytest.raises(InputError) as raised:
        find_archive(tmp_path)
    for found in raised.value.problems:
        for name in ("abo-listings.tar", "abo-images-small.tar"):
            assert f"tar -xf {tmp_path / name} -C {tmp_path}" in found
    with pytest.raises(InputError, match=re.escape("unpack it (tar -xf abo-listings.tar) and name the folder")):
        find_archive(tmp_path / "abo-listings.tar")


def test_two_archives_are_ambiguous(tmp_path):
    as_shipped(tmp_path / "one")
    as_shipped(tmp_path / "two")
    found = problem(tmp_path)
    assert "listings in 2 places" in found and str(tmp_path / "one/listings/metadata") in found and "/two/" in found


def test_a_folder_of_another_name_is_not_left(tmp_path):
    as_shipped(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="no listings found"):
        find_archive(tmp_path / "mine")


def test_folders_that_are_not_there(tmp_path):
    assert problem(tmp_path / "no") == f"--abo_dir {tmp_path / 'no'}: no such folder"
    assert problem(as_shipped(tmp_path), tmp_path / "no") == f"--image_dir {tmp_path / 'no'}: no such folder"


def test_a_table_without_pictures(tmp_path):
    write_archive(tmp_path, FILES, {})
    found = problem(tmp_path)
    assert found.startswith(f"{tmp_path}/images/metadata/images.csv.gz: no pictures found beside it")
    assert "--image_dir" in found
