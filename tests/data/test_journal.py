"""The journal of a long run: it goes on until all files are written, and one process at a time has it."""

import json

import pytest

from blip2vqa.data.journal import Journal
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import partial_path
from helpers.full_disk import full_disk


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.csv"


def entry(row) -> dict:
    return {"row": row, "answer": "red", "confidence": 0.5}


def test_it_stays_until_the_last_file_is_written(path):
    page = path.with_name("out.html")

    def stop():
        path.write_text("table")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Journal(path, {"model": "a"}, others=[page]) as journal:
        journal.add([entry("x")])
        journal.finish(stop)
    with Journal(path, {"model": "a"}, others=[page]) as journal:
        assert journal.results == {"x": entry("x")}
        assert journal.finish(lambda: page.write_text("page")) == 4
    assert sorted(file.name for file in path.parent.iterdir()) == ["out.csv", "out.html"]
    for others in ([page], []):
        with pytest.raises(InputError, match="already there"):
            Journal(path, {"model": "a"}, others=others)
    assert not partial_path(path).exists()


def test_a_file_of_somebody_else_is_not_taken_for_one_of_the_run(path):
    page = path.with_name("out.html")
    with Journal(path, {}, others=[page]) as journal:
        journal.add([entry(1)])
    page.write_text("precious")
    with pytest.raises(InputError, match=r"out.html: is already there.*--overwrite"):
        Journal(path, {}, others=[page])
    Journal(path, {}, others=[page], overwrite=True).close()


def test_a_second_process_is_refused(path):
    with Journal(path, {}) as journal:
        journal.add([entry(1)])
        for overwrite in (False, True):
            with pytest.raises(InputError, match=r"out.csv.partial: another run is writing to it"):
                Journal(path, {}, overwrite=overwrite)
        journal.add([entry(2)])
    with Journal(path, {}) as journal:
        assert list(journal.results) == [1, 2]


def test_a_changed_line_is_noticed_and_one_without_a_checksum_is_not_needed(path):
    with Journal(path, {}) as journal:
        journal.add([entry(1)])
    text = partial_path(path).read_text()
    partial_path(path).write_text(text.replace('"confidence": 0.5', '"confidence": 0.9'))
    with pytest.raises(InputError, match=r"out.csv.partial: damaged \(a line does not agree with its checksum\)"):
        Journal(path, {})
    lines = [{key: value for key, value in json.loads(line).items() if key != "sum"} for line in text.splitlines()]
    partial_path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))  # as version 0.2 writes it
    with Journal(path, {}) as journal:
        assert journal.results == {1: entry(1)}


def test_a_full_disk_loses_no_result(path):
    with Journal(path, {}) as journal:
        journal.add([entry(1)])
        with full_disk(partial_path(path).stat().st_size + 9), pytest.raises(InputError, match="File too large"):
            journal.add([entry(2)])
    with Journal(path, {}) as journal:
        assert list(journal.results) == [1]
