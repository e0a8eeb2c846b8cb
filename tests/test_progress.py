"""`--quiet` reaches what shows progress, and ends with the command."""

import os

from flax_resnets import cli
from flax_resnets.progress import is_quiet


def test_quiet_holds_for_the_command(monkeypatch):
    seen = []
    monkeypatch.setattr("flax_resnets.cli.models.run", lambda arguments: seen.append(is_quiet()))
    monkeypatch.delenv("FLAX_RESNETS_QUIET", raising=False)
    assert cli.main(["models", "--quiet"]) == 0
    assert cli.main(["models"]) == 0
    assert seen == [True, False]
    assert "FLAX_RESNETS_QUIET" not in os.environ
