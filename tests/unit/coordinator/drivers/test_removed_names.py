"""Who was removed is read again when the file changes, and trouble with it harms nobody."""

from coordinator.drivers.removed_names import RemovedNames


def test_without_a_file_nobody_is_out(tmp_path):
    for path in (None, tmp_path / "removed"):
        names = RemovedNames(path)
        assert names.look() == frozenset()
        assert "kitchen" not in names


def test_news_are_told_once_and_a_name_that_is_back_is_back(tmp_path):
    path = tmp_path / "removed"
    path.write_text("kitchen\n")
    names = RemovedNames(path)
    assert names.look() == {"kitchen"}
    assert names.look() == frozenset()
    assert "kitchen" in names
    new = tmp_path / "new"
    new.write_text("attic\nnot/a/name\n")
    new.replace(path)
    assert names.look() == {"attic"}
    assert "kitchen" not in names


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path):
    path = tmp_path / "removed"
    path.write_text("kitchen\n")
    names = RemovedNames(path)
    names.look()
    path.unlink()
    path.mkdir()
    assert names.look() == frozenset()
    assert "kitchen" in names
