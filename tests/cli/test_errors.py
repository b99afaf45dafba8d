"""Exit codes and messages of tools."""

import argparse
import pickle

import pytest
from torch.utils.data import DataLoader

from pit_downstream.cli.errors import add_debug_flag, report_errors
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.extras import MissingExtraError


def end(error, *flags):
    """Raise `error` in a tool with these flags."""
    with report_errors():
        parser = argparse.ArgumentParser()
        add_debug_flag(parser)
        parser.parse_args(flags)
        raise error


@pytest.mark.parametrize('kind', [InputError, MissingExtraError])
def test_input_errors_print_their_text_and_exit_with_2(kind, capsys):
    with pytest.raises(SystemExit) as ended:
        end(kind('a wrong value: 7. Give 5.'))
    assert ended.value.code == 2 and capsys.readouterr().err == 'a wrong value: 7. Give 5.\n'


@pytest.mark.parametrize('kind', [ValueError, KeyError, RuntimeError, ImportError, TypeError, OSError])
def test_other_errors_are_not_caught(kind):
    with pytest.raises(kind, match='a bug'):
        end(kind('a bug'))


def test_debug_shows_every_error():
    with pytest.raises(InputError):
        end(InputError('x'), '--debug')
    with pytest.raises(SystemExit):  # the flag of one run does not leak into the next
        end(InputError('x'))


class Refusing:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise InputError(f'sample {index} has no label: file.png. Add one.')


def test_errors_of_loader_workers_keep_their_text():
    with pytest.raises(InputError) as caught:
        list(DataLoader(Refusing(), num_workers=1))
    assert str(caught.value) == 'sample 0 has no label: file.png. Add one.'


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(InputError('a')))
    assert type(error) is InputError and str(error) == 'a' and isinstance(error, ValueError)
