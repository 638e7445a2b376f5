"""How much the command says, what it costs to be told of a mistake, and the words that a shell completes."""

import logging
import subprocess
import sys

import pytest
from PIL import Image
from serving import HOME

import fastllie
from fastllie.cli import main
from fastllie.cli.command import _verbs, parser_of


def photo(folder):
    Image.new("RGB", (20, 14), (20, 30, 25)).save(folder / "night.png")
    return str(folder / "night.png")


def test_quiet_and_verbose_of_every_verb():
    for name, verb in _verbs(parser_of([])).items():
        flags = {flag for action in verb._actions for flag in action.option_strings}
        assert {"-q", "--quiet", "-v", "--verbose"} <= flags, name


def test_a_folder_out_loud_and_not(tmp_path, capsys):
    source, out = photo(tmp_path), str(tmp_path / "out/")
    assert main(["enhance", source, "-o", f"{out}/", "-v", "--method", "sci"]) == 0
    said = capsys.readouterr().err
    assert f"fastllie enhance: {source}: wrote " in said
    assert "is there" not in said
    assert main(["enhance", source, "-o", f"{out}/", "-vv", "--method", "sci"]) == 0
    assert "night.png is there" in capsys.readouterr().err
    assert main(["enhance", source, "-o", f"{out}/", "-q", "--method", "zerodce"]) == 0
    assert capsys.readouterr() == ("", "")
    # what Python programs hear is theirs again
    logger = logging.getLogger("fastllie")
    assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)


def test_python_programs_hear_it_by_logging(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="fastllie"):
        fastllie.enhance_folder(photo(tmp_path), tmp_path / "out", "sci")
    assert any("wrote" in record.getMessage() for record in caplog.records)


MISTAKES = {
    "enhanse night.jpg": "invalid choice: 'enhanse'",
    "enhance night.jpg --mehtod sci": "did you mean --method?",
    "enhance night.jpg --method sic": "did you mean 'sci'?",
    "enhance night.jpg --method sci --scale 2": "sci has no option 'scale'",
    "train sic photos -o run": "did you mean 'sci'?",
    "train sci photos -o run --epohcs 3": "did you mean --epochs",
    "evaluate --method sic --data photos": "did you mean 'sci'?",
    "benchmark --method sic": "did you mean 'sci'?",
    "export sic -o net.onnx": "did you mean 'sci'?",
    "export sci -o net.onnx --scale 2": "sci has no option 'scale'",
}


def test_mistakes_are_answered_before_torch_is_loaded():
    """Which takes a second and more; without it each of these takes a tenth."""
    code = f"""
import contextlib, io, sys
from fastllie.cli import main
for words, wanted in {MISTAKES!r}.items():
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        try:
            code = main(words.split())
        except SystemExit as end:
            code = end.code
    assert code == 2 and wanted in told.getvalue(), (words, code, told.getvalue())
    assert "torch" not in sys.modules, words
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion(capsys, monkeypatch):
    shtab = pytest.importorskip("shtab")
    for shell in {"bash", "zsh", "fish", "tcsh"} & set(shtab.SUPPORTED_SHELLS):
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        for word in ("enhance", "completion", "strength", "fastllie"):
            assert word in script, (shell, word)


def test_completion_without_its_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert 'pip install "fastllie[completion]"' in capsys.readouterr().err
