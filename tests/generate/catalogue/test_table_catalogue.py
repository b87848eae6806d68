"""A catalogue of one's own: a table with image_name and whatever else is known."""

import json
from collections import Counter

import pytest

from blip2vqa.generate.catalogue.table_catalogue import read_table_products
from blip2vqa.generate.rows import Product
from blip2vqa.utils.errors import InputError


def read(path: str, image_dir: str) -> tuple[list[Product], dict[str, int]]:
    counts = Counter()
    return list(read_table_products(path, image_dir, counts)), dict(counts)


def problems(path: str, image_dir: str) -> list[str]:
    with pytest.raises(InputError) as raised:
        read(path, image_dir)
    assert all("\n" not in problem for problem in raised.value.problems)
    return raised.value.problems


def test_every_column(write, image_dir):
    path = write(
        "t.csv",
        "image_name,item_id,product_type,name,color,material,fabric,shape,pattern,style,keywords\n"
        '0.png,A1,Cell Phone Case,"Back Cover, red",Red,Rubber,Felt,Square,Plain,Modern,"cover; case, cover, "\n',
    )
    assert read(path, image_dir) == (
        [
            Product(
                "A1", "cell_phone_case", "Back Cover, red", ("0.png",),
                {
                    "color": ("Red",), "material": ("Rubber",), "fabric_type": ("Felt",),
                    "item_shape": ("Square",), "pattern": ("Plain",), "style": ("Modern",), "item_keywords": ("cover", "case"),
                },
            )
        ],
        {"listings": 1, "read": 1},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("header", "field", "expected"),
    [
        ("type", "product_type", "dining_chair"),
        ("Category", "product_type", "dining_chair"),
        ("Product Type", "product_type", "dining_chair"),
        ("item_name", "name", "Dining Chair"),
        ("Title", "name", "Dining Chair"),
        ("description", "name", "Dining Chair"),
        ("COLOUR", "texts", {"color": ("Dining Chair",)}),
        ("fabric_type", "texts", {"fabric_type": ("Dining Chair",)}),
        ("item shape", "texts", {"item_shape": ("Dining Chair",)}),
        ("Item-Keywords", "texts", {"item_keywords": ("Dining Chair",)}),
    ],
)
def test_other_names_of_columns(write, image_dir, header, field, expected):
    ((product,), _) = read(write("t.csv", f"image_name,{header}\n0.png,Dining Chair\n"), image_dir)
    assert getattr(product, field) == expected
    rest = {"product_type": "", "name": "", "texts": {}, "item_id": "0.png", "images": ("0.png",)} | {field: expected}
    assert {name: getattr(product, name) for name in rest} == rest


def test_of_two_columns_for_one_thing_the_first_that_says_something(write, image_dir):
    path = write(
        "t.csv", "image_name,colour,color,title,name\n0.png,Blue,,Long name,Name\n1.png,Blue,Red,Long name, \n"
    )
    (first, second), _ = read(path, image_dir)
    assert (first.texts, first.name) == ({"color": ("Blue",)}, "Name")
    assert (second.texts, second.name) == ({"color": ("Red",)}, "Long name")


def test_rows_of_one_item_are_one_product(write, image_dir):
    path = write(
        "t.csv",
        "item_id,image_name,name,color,keywords\n"
        'A,0.png,,Red,"x, y"\nB,1.png,Chair,,\nA,2.png,Table,Red,y\nA,gone.png,Sofa,Green,\nA,0.png,,Blue,z\n,1.png,,,\n',
    )
    products, counts = read(path, image_dir)
    assert products == [
        Product("A", "", "Table", ("0.png", "2.png"), {"color": ("Red", "Blue"), "item_keywords": ("x", "y", "z")}),
        Product("B", "", "Chair", ("1.png",), {}),
        Product("1.png", "", "", ("1.png",), {}),
    ]
    assert counts == {"listings": 6, "without a picture": 1, "read": 3}


def test_pictures_that_are_missing_are_counted_and_named(write, image_dir, caplog):
    names = ["0.png", *(f"gone{number}.png" for number in range(5)), "../0.png", "1"]
    products, counts = read(write("t.csv", "image_name\n" + "\n".join(names) + "\n"), image_dir)
    assert [product.images for product in products] == [("0.png",), ("1.png",)]  # an extension may be left out
    assert counts == {"listings": 8, "without a picture": 6, "read": 2}
    assert "row 3: gone0.png: not found in the image folder; row 4: gone1.png" in caplog.text
    assert "and 3 more" in caplog.text and "gone3" not in caplog.text


def test_columns_that_are_not_known_are_named(write, image_dir, caplog):
    read(write("t.csv", "image_name,price,colr,color\n0.png,5,Red,Red\n"), image_dir)
    assert "columns not used: price, colr" in caplog.text
    caplog.clear()
    read(write("t.csv", "image_name;color\n0.png;Red\n"), image_dir)
    assert caplog.text == ""


def test_other_formats(write, image_dir):
    row = {"image_name": "0.png", "color": "Größe", "item_id": 7}
    expected = [Product("7", "", "", ("0.png",), {"color": ("Größe",)})]
    assert read(write("t.jsonl", json.dumps(row) + "\n"), image_dir)[0] == expected
    assert (
        read(write("t.tsv", "Image_Name\tcolor\titem_id\n0.png\tGröße\t7\n".encode("utf-16")), image_dir)[0] == expected
    )


def test_no_image_name(write, image_dir):
    path = write("t.csv", "photograph,color\n0.png,Red\n")
    (problem,) = problems(path, image_dir)
    assert problem.startswith(f"{path}: no column image_name; its columns are photograph, color; rename")


def test_another_usual_name_of_the_images(write, image_dir):
    products, _ = read(write("t.csv", "image,color\n0.png,Red\n"), image_dir)
    assert products == [Product("0.png", "", "", ("0.png",), {"color": ("Red",)})]


def test_empty_image_names(write, image_dir):
    path = write("t.csv", "image_name,color\n0.png,Red\n,Blue\n")
    assert problems(path, image_dir) == [f"{path}: empty image_name in row 3; fill in or delete"]


def test_no_rows_no_file_no_folder(write, image_dir, tmp_path):
    path = write("t.csv", "image_name,color\n")
    assert problems(path, image_dir) == [f"{path}: no rows"]
    assert problems(path, str(tmp_path / "no")) == [f"--image_dir {tmp_path / 'no'}: no such folder"]
    assert problems("user/name", image_dir) == ["--csv_path user/name: no such file"]
