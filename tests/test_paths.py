"""`~` in a path means the user's home directory, in flags, fields and variables."""

import pytest

from flax_resnets.errors import UserError
from flax_resnets.paths import cache_root, expanded


def test_it_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~", "--workdir") == tmp_path
    assert expanded("~/runs", "--workdir") == tmp_path / "runs"
    assert str(expanded("runs/~", "--workdir")) == "runs/~"


def test_of_a_user_there_is_not_no_directory_is_made(monkeypatch):
    with pytest.raises(UserError, match="--output=~nobody-of-that-name/x: there is no such user"):
        expanded("~nobody-of-that-name/x", "--output")


def test_an_empty_path_is_not_the_directory_where_one_is():
    """It is what a shell makes of a variable that is not set."""
    with pytest.raises(UserError, match=r"^sweep: --workdir=: needs a value$"):
        expanded("", "sweep: --workdir")


@pytest.mark.parametrize("variable", ["FLAX_RESNETS_CACHE", "XDG_CACHE_HOME"])
def test_caches_lie_in_the_home(tmp_path, monkeypatch, variable):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FLAX_RESNETS_CACHE")
    monkeypatch.setenv(variable, "~/kept")
    assert cache_root() == tmp_path / "kept" / ("flax_resnets" if variable == "XDG_CACHE_HOME" else "")
    monkeypatch.setenv(variable, "~nobody-of-that-name/kept")
    with pytest.raises(UserError, match=f"{variable}=~nobody-of-that-name/kept: there is no such user"):
        cache_root()


def test_a_name_that_begins_with_a_tilde_stays_it_when_it_is_expanded_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    once = expanded("./~mine", "--workdir")
    assert once == tmp_path / "~mine"
    assert expanded(once, "workdir") == once
    (tmp_path / "~there").mkdir()
    assert expanded("~there", "--workdir") == tmp_path / "~there"
