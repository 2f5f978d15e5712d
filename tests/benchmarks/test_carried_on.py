"""What the benchmark of carried-on training refuses."""

import pytest

from benchmarks import carried_on


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--days", "0"], "argument --days: 0 is no whole number of at least 1"),
        (["--days", "5", "--window", "5"], "--days 5 must be more than --window 5"),
        (["--method", "Nope"], "invalid choice: 'Nope'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_trained(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        carried_on.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
