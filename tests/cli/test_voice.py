"""How much the command says, what it costs to be told of a mistake, and the words that a shell completes."""

import io
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


def test_files_that_are_not_there_are_told_before_torch_is_loaded():
    code = """
import sys
from fastllie.cli import main
code = main(["enhance", "gone.png", "lost.jpg", "-o", "out"])
assert "torch" not in sys.modules
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "fastllie enhance: gone.png: no such image file: 'gone.png'",
        "fastllie enhance: lost.jpg: no such image file: 'lost.jpg'",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("flags", "shown"), [([], True), (["-q"], False)])
def test_a_terminal_shows_at_once_that_it_begins(flags, shown, tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    told = []
    real = fastllie.Enhancer
    monkeypatch.setattr(
        fastllie,
        "Enhancer",
        lambda *args, **settings: told.append(terminal.getvalue()) or real(*args, **settings),
    )
    command = ["enhance", photo(tmp_path), "-o", str(tmp_path / "out.png"), "--method", "sci", *flags]
    assert main(command) == 0
    assert ("starting" in told[0]) == shown
    # and nothing of it stays
    assert terminal.getvalue().rpartition("\r")[2].strip() == ""


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
