"""What surely holds no rows is told with what makes it some; everything else is read."""

import pytest

from pipeline.cli.forms import check_form
from pipeline.errors import Refused


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\n",
        b'{"text": "a, user"}\n',
        b'\xef\xbb\xbf{"text": "a"}',
        b"{\n{",
        b'{"text": "user,te',
        b"oops\n",
        b'"text, user"\n',
    ],
)
def test_rows_pass_and_bad_ones_are_told_one_by_one(head: bytes):
    check_form(head, "rows.jsonl")


def test_the_command_names_the_file_as_a_shell_takes_it():
    with pytest.raises(Refused, match=r"`jq -c '\.\[\]' < 'my rows' \| hybrid-memory import -`"):
        check_form(b"[", "my rows")


def test_of_a_pipe_it_names_what_belongs_between():
    with pytest.raises(Refused, match=r"Standard input is compressed.*`gunzip -c \| hybrid-memory"):
        check_form(b"\x1f\x8b\x08", "-")
