"""What docs/start.md says is so; and links, names and commands of all tutorials."""

import pydoc
import re

import pytest

from keras_cnv2.checkpoints.registry import CHECKPOINTS
from keras_cnv2.commands import main as library_command
from keras_cnv2_command import TRAINING
from tests.docs.pages import (
    BLOCK,
    DOCS,
    NOTEBOOK,
    PAGES,
    README,
    ROOT,
    ROWS,
    blocks,
    commands,
    in_text,
    lines_of,
    table,
)
from training.__main__ import main
from training.commands import evaluate, finetune, options, pretrain, quickstart, recipes, report
from training.recipes.images import FINETUNING


@pytest.fixture
def parsed(monkeypatch):
    """What the commands of `training` are told, in place of running them."""
    seen = []
    for module in (quickstart, pretrain, finetune, evaluate, report, recipes):
        monkeypatch.setattr(module, "main", seen.append)
    return seen


@pytest.mark.parametrize("page", PAGES)
class TestPages:
    def test_links(self, page):
        links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]) if not link.startswith("https://")]
        assert links
        for link in links:
            assert (DOCS / link).is_file(), link

    def test_names(self, page):
        for name in re.findall(r"keras_cnv2(?:\.\w+)+", PAGES[page]):
            assert pydoc.locate(name) is not None, name

    def test_blocks(self, page):
        assert PAGES[page].count("```") == 2 * len(BLOCK.findall(PAGES[page]))
        assert {language for language, _ in BLOCK.findall(PAGES[page])} <= {"bash", "python", ""}
        for code in blocks(page, "python"):
            compile(code, page, "exec")
        for line in lines_of(page):
            assert line.startswith(("pip install -e ", "keras-cnv2 ")), line

    def test_commands_of_training(self, page, parsed):
        """They parse, and the values of their recipes are possible."""
        lines = [line for line in commands(page, "keras-cnv2") if line[0] in TRAINING]
        assert lines or page == "weights.md"
        for line in lines:
            if "--help" in line:
                with pytest.raises(SystemExit, match="^0$"):
                    main(line)
                continue
            main(line)
            if line[0] in ROWS:
                options.chosen_recipe(parsed[-1], ROWS[line[0]])

    def test_commands_of_the_library(self, page):
        lines = [line for line in commands(page, "keras-cnv2") if line[0] not in TRAINING]
        assert lines or page == "pretrain.md"
        for line in lines:
            library_command.new_parser().parse_args(line)

    def test_options_in_the_text(self, page, capsys):
        known = {"--no-deps"}  # pip's
        with pytest.raises(SystemExit):
            library_command.new_parser().parse_args(["predict", "--help"])
        known |= {*re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)}
        for command in ("pretrain", "finetune", "recipes"):
            with pytest.raises(SystemExit):
                main([command, "--help"])
            known |= {*re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)}
        assert {option for code in in_text(page) for option in re.findall(r"(?<!\S)--[a-z-]+", code)} <= known

    def test_published_weights(self, page):
        """They exist, and where they have to be fetched the line says so."""
        known = {name: row for row in CHECKPOINTS for name in (row.tag, row.name)}
        for line in lines_of(page):
            names = re.findall(r"--weights (?!none|runs/)(\S+)|(convnextv2_\w+\.\w+)", line)
            rows = [known[name] for pair in names for name in pair if name and not name.startswith("hf://")]
            rows += [known[FINETUNING["images"].weights]] * ("finetune" in line and "--weights" not in line)
            assert ("needs the network once" in line) == any(row.tag.startswith("fcmae") for row in rows), line


class TestStart:
    def test_example_is_the_readme_s(self):
        """Whose test runs it, with random weights in place of the download."""
        (example,) = blocks("start.md", "python")
        assert f"```python\n{example.replace('  # from the Hugging Face hub, once', '')}```" in README

    def test_what_a_run_holds(self):
        """As the quickstart's own tests have it."""
        tests = (ROOT / "tests" / "training" / "commands" / "test_quickstart.py").read_text()
        rows = table("start.md", "| in `runs/quickstart`")
        files = [file for row in rows for file in re.findall(r"`([\w.]+)`", " ".join(row))]
        assert files
        for file in files:
            assert f'"{file}"' in tests, file

    def test_time_is_the_readme_s(self):
        assert "three minutes on two CPU cores" in PAGES["start.md"]
        assert "three minutes on two CPU cores" in README

    def test_it_leads_to_all_pages(self):
        others = {"dense.md", "distribute.md", "serving.md", "litert.md", "speed.md", "faq.md", NOTEBOOK}
        assert {*re.findall(r"\]\(([\w.]+)\)", PAGES["start.md"])} >= PAGES.keys() - {"start.md"} | others
