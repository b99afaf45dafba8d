"""Places that can and cannot be written to; nothing is left there by asking."""

import os

import pytest

from pit_downstream.core.outputs import require_file_to_write, require_folder_to_write


def test_good_places_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'old.csv').write_text('text')
    for folder in ('.', 'new/and/deep', tmp_path):
        require_folder_to_write(folder, '--store')
    for path in ('new.csv', 'old.csv', os.devnull):
        require_file_to_write(path, '--csv')
    assert [path.name for path in tmp_path.iterdir()] == ['old.csv'] and (tmp_path / 'old.csv').read_text() == 'text'


def test_bad_places_get_one_sentence(tmp_path):
    (tmp_path / 'file').write_text('')
    for folder, words in ((tmp_path / 'file', 'Not a directory'), (tmp_path / 'file' / 'x', 'Not a directory'),
                          ('/proc/x', 'in /proc')):
        with pytest.raises(ValueError, match=f'expected a folder to write to for --store, got {folder}: .*{words}'):
            require_folder_to_write(folder, '--store')
    for path, words in ((tmp_path, 'got the folder'), (tmp_path / 'no' / 'x', 'make the folder')):
        with pytest.raises(ValueError, match=f'expected a file to write for --csv.* {words}'):
            require_file_to_write(path, '--csv')
