"""Places that can and cannot be written to; nothing is left there by asking."""

import os

import pytest

from pit_downstream.utils.path_checks import resolve_inside, require_writable_file, require_writable_folder


def test_good_places_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'old.csv').write_text('text')
    for folder in ('.', 'new/and/deep', tmp_path):
        require_writable_folder(folder, '--output-dir')
    for path in ('new.csv', 'old.csv', os.devnull):
        require_writable_file(path, '--csv')
    assert [path.name for path in tmp_path.iterdir()] == ['old.csv'] and (tmp_path / 'old.csv').read_text() == 'text'


def test_bad_places_get_one_sentence(tmp_path):
    (tmp_path / 'file').write_text('')
    for folder, words in ((tmp_path / 'file', 'Not a directory'), (tmp_path / 'file' / 'x', 'Not a directory'),
                          ('/proc/x', 'in /proc')):
        with pytest.raises(ValueError,
                           match=f'expected a folder to write to for --output-dir, got {folder}: .*{words}'):
            require_writable_folder(folder, '--output-dir')
    for path, words in ((tmp_path, 'got the folder'), (tmp_path / 'no' / 'x', 'make the folder')):
        with pytest.raises(ValueError, match=f'expected a file to write for --csv.* {words}'):
            require_writable_file(path, '--csv')


@pytest.mark.parametrize('name', ['a.png', 'class/a.png', 'a..b/..c.png', 'inner/a.png'])
def test_names_of_data_stay_in_the_folder(tmp_path, name):
    (tmp_path / 'out/real').mkdir(parents=True)
    (tmp_path / 'out/inner').symlink_to('real')
    (tmp_path / 'link').symlink_to('out')  # the folder itself may be a link
    for folder in (tmp_path / 'out', tmp_path / 'link', tmp_path / 'new'):
        assert resolve_inside(folder, name) == folder / name


@pytest.mark.parametrize('name', ['../a.png', 'class/../../a.png', '/tmp/a.png', '', '.', 'outside/a.png', 'file.png',
                                  'a\0.png'])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/outside').symlink_to(tmp_path)
    (tmp_path / 'out/file.png').symlink_to(tmp_path / 'file.png')
    with pytest.raises(ValueError, match='leaves the output folder'):
        resolve_inside(tmp_path / 'out', name)
