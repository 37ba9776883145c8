"""Every command, file and setting that the documentation names: parsed by what would read it, or looked up."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pipeline import __main__ as cli
from pipeline.config import load, parse, split_settings
from pipeline.imaging.config import ImagingConfig
from pipeline.weather.config import WeatherConfig
from tests.pipeline.test_config import every_key

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *sorted((ROOT / "workflows").rglob("*.yaml")),
    ROOT / "workflows" / "Snakefile",
    ROOT / "environment.yml",
    ROOT / "Dockerfile",
]
DEMO = ROOT / "workflows" / "config" / "demo.yaml"
PLANTS = ROOT / "workflows" / "config" / "plants.yaml"
PROGRAMS = ("python", "make", "snakemake", "torchrun", "sbatch", "mamba", "docker")
STAND_INS = {"FILE", "C", "PATH", "CONFIG", "...", "my.yaml", "your.yaml", "analysis.nc", "/data/my.yaml"}
SECTIONS = "source|data|model|training|forecast|evaluation|compute|masking|reconstruct"
IN_CONTRACTS = {"source.version"}
"""Named like settings, but entries of a store's contract."""
MAKEFILE = (ROOT / "Makefile").read_text()
GROUP: Any = typer.main.get_command(cli.app)


@dataclass(frozen=True)
class Command:
    """A command as a reader would copy it; those in a sentence may leave out what every stage needs."""

    words: tuple[str, ...]
    place: str
    inline: bool

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def snippets(path: Path) -> Iterator[tuple[str, bool]]:
    """(text, whether it stands in a sentence) of everything in a file that may be a command."""
    text = joined(path)
    if path.suffix != ".md":
        text = text.split('"""')[1] if path.suffix == ".py" else text
        yield from ((line.strip().lstrip("#").strip(), False) for line in text.splitlines())
        return
    yield from ((line.strip(), False) for block in blocks(path) for line in block.splitlines())
    prose = re.sub(r"(?m)^(    |\t).*$", "", re.sub(r"(?ms)^```.*?^```", "", text))
    yield from ((" ".join(found.split()), True) for found in re.findall(r"`([^`]+)`", prose))


def joined(path: Path) -> str:
    """A file with its continued lines made one."""
    return re.sub(r"\s*\\\n\s*", " ", path.read_text())


def blocks(path: Path) -> list[str]:
    """Indented and fenced blocks of a page."""
    text = joined(path)
    fenced = re.findall(r"(?ms)^```\w*\n(.*?)^```", text)
    indented = re.findall(r"(?m)(?:^|\n)\n((?:    .*(?:\n|$))+)", text)
    return [*fenced, *indented]


def commands() -> list[Command]:
    """All commands, without comments, redirections and variables of the environment."""
    found = []
    for path in (*PAGES, *OTHERS):
        for text, inline in snippets(path):
            for part in re.split(r"\s+&&\s+|\s+>\s+|\s{2,}(?=\S)", text)[: 1 + text.count("&&")]:
                with contextlib.suppress(ValueError):  # prose with an apostrophe
                    words = shlex.split(part, comments=True)
                    while words and re.fullmatch(r"[A-Z]+=\S*", words[0]):
                        words = words[1:]
                    if len(words) > 1 and words[0].removeprefix(".venv/bin/") in PROGRAMS and words[1] not in "=:|":
                        words[0] = words[0].removeprefix(".venv/bin/")
                        found.append(Command(tuple(words), str(path.relative_to(ROOT)), inline))
    return found


COMMANDS = commands()


def check_settings(texts: list[str], *, config: str | None = None) -> None:
    """Settings fit the configuration that is named, or the demo's."""
    given = [text for text in texts if "..." not in text and "a.b" not in text and "directory=" not in text]
    load(DEMO if config is None or config in STAND_INS else ROOT / config, given)


def check_pipeline(words: list[str], *, inline: bool) -> None:
    """The real parser understands a command of ours."""
    if words[:1] == ["<stage>"]:
        return
    with GROUP.make_context("pipeline", words[:0] or ["--help"], resilient_parsing=True) as context:
        if words[0].startswith("--"):
            assert words[0] in {option for p in GROUP.params for option in p.opts}
            return
        name, command, rest = GROUP.resolve_command(context, words)
        try:
            made = command.make_context(name, rest, parent=context)
        except typer.Exit:  # --help
            return
        except Exception as error:
            if inline and type(error).__name__ == "MissingParameter":
                return
            raise
        check_settings(made.params.get("set_") or [], config=str(made.params.get("config") or "C"))


def check_make(words: list[str]) -> None:
    """Targets and variables are those of the Makefile."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            assert re.search(rf"(?m)^{re.escape(word)}:", MAKEFILE), word
            continue
        assert re.search(rf"(?m)^(export )?{name} *\?=|\$\({name}\)", MAKEFILE), word
        if name == "SET":
            check_settings(split_settings(value))
        elif name == "CONFIG":
            assert value in STAND_INS or (ROOT / value).exists(), word
        elif name == "EXTRAS":
            assert set(value.split()) <= set(extras), word


def check_script(words: list[str]) -> None:
    """A script exists and has the options."""
    script = ROOT / words[0]
    assert script.exists(), script
    known = set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", script.read_text())) | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known, words


def check_torchrun(words: list[str], *, inline: bool) -> None:
    """torchrun's own parser understands its part, ours the rest."""
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(words)
    assert parsed.module
    assert parsed.training_script == "pipeline"
    check_pipeline(parsed.training_script_args, inline=inline)


def check_snakemake(words: list[str]) -> None:
    """Snakemake's own parser understands the options, and the files are there."""
    from snakemake.cli import get_argument_parser

    parsed = get_argument_parser().parse_args([*words, "--cores", "1"])
    assert (ROOT / parsed.snakefile).exists()
    assert (ROOT / parsed.workflow_profile / "config.yaml").exists()
    for name in map(str, parsed.configfile or []):
        assert Path(name).name in STAND_INS or Path(name).exists(), name


def check(words: list[str], *, inline: bool) -> None:
    """Fails where a reader's copy of a command would."""
    program, rest = words[0], words[1:]
    if program == "make":
        check_make(rest)
    elif program == "snakemake":
        check_snakemake(rest)
    elif program == "torchrun":
        check_torchrun(rest, inline=inline)
    elif rest[:2] == ["-m", "pipeline"]:
        check_pipeline(rest[2:], inline=inline)
    elif rest[:2] == ["-m", "model.parallel.torchrun"]:
        check_torchrun(rest[2:], inline=inline)
    elif program == "python" and rest[0].endswith(".py"):
        check_script(rest)
    elif program == "sbatch" and "--wrap" in rest:
        wrapped = shlex.split(rest[rest.index("--wrap") + 1])
        check([wrapped[0].removeprefix(".venv/bin/"), *wrapped[1:]], inline=inline)
    elif program == "sbatch":
        assert (ROOT / rest[0]).exists(), rest
    elif program == "mamba":
        assert (ROOT / rest[rest.index("-f") + 1]).exists(), rest
    elif program == "docker" and "--build-arg" in rest:
        name = rest[rest.index("--build-arg") + 1].partition("=")[0]
        assert f"ARG {name}=" in (ROOT / "Dockerfile").read_text()
    elif program == "docker" and "make" in rest:
        check_make(rest[rest.index("make") + 1 :])
    else:
        assert program == "docker" or rest[:1] == ["-c"], f"no rule of this test covers {shlex.join(words)}"


def test_the_documentation_has_commands() -> None:
    """Catches a reader of documentation that finds none: the tests below would prove nothing."""
    assert len(COMMANDS) > 60
    assert {command.words[0] for command in COMMANDS} == set(PROGRAMS)


@pytest.mark.slow
@pytest.mark.parametrize("command", [pytest.param(c, id=str(c)) for c in dict.fromkeys(COMMANDS)])
def test_a_command_works_as_it_is_printed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an option, a target, a setting or a file that was renamed, or a command that never worked."""
    monkeypatch.chdir(ROOT)
    check(list(command.words), inline=command.inline)


def of_module(name: str) -> bool:
    """Whether a name with dots is that of a module of ours, or of something in one."""
    paths = [ROOT.joinpath(*name.split(".")[:n]) for n in range(2, name.count(".") + 2)]
    return any(path.is_dir() or path.with_suffix(".py").exists() for path in paths)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_settings_that_a_page_names_exist(path: Path) -> None:
    """Catches a key that was renamed and still stands in a sentence or in an example of a configuration."""
    keys = set(every_key(WeatherConfig)) | set(every_key(ImagingConfig))
    for text, inline in snippets(path):
        named = re.fullmatch(rf"((?:{SECTIONS})(?:\.[a-z_]+)+)(?:[:= ].*)?", text) if inline else None
        if named and not of_module(named[1]) and named[1] not in IN_CONTRACTS:
            assert named[1] in keys, f"{path.name}: {text}"
    for block in blocks(path):
        if re.match(rf"\s*(?:{SECTIONS}):", block):
            raw = yaml.safe_load((PLANTS if path.name == "hyperspectral.md" else DEMO).read_text())
            for section, content in yaml.safe_load(block).items():
                other = content.get("kind", raw.get(section, {}).get("kind")) != raw.get(section, {}).get("kind")
                raw[section] = content if other else {**raw.get(section, {}), **content}
            with contextlib.suppress(ValueError):
                parse(raw)
                continue
            with pytest.raises(ValueError, match="fault") as error:
                parse(raw)
            assert "unknown key" not in str(error.value), f"{path.name}:\n{block}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_a_page_names_exist(path: Path) -> None:
    """Catches a file that moved."""
    folders = "docs|workflows|pipeline|preprocess|model|evaluate|benchmarks|tests"
    text = path.read_text()
    named = {name.rstrip(".") for name in re.findall(rf"(?<![\w/.>-])(?:{folders})/[\w./-]+", text)}
    absent = {name for name in named if not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists()}
    for file, heading in re.findall(r"\]\((\w[\w/.-]+|)(?:#([\w-]+))?\)", text):
        target = path.parent / file if file else path
        if not target.exists() or (heading and heading not in headings(target)):
            absent.add(f"{file}#{heading}")
    assert absent == set()


def headings(page: Path) -> set[str]:
    """Of a page, as links to them are written."""
    found = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


def test_benchmarks_put_the_project_on_their_path() -> None:
    """Catches `python benchmarks/channel_stage.py`, as its page prints it, failing without PYTHONPATH."""
    for script in sorted((ROOT / "benchmarks").glob("*.py")):
        text = script.read_text()
        first = re.search(r"(?m)^from (benchmarks|pipeline|preprocess|model|evaluate|tests)\b", text)
        where = text.find("sys.path.insert(0, str(Path(__file__).resolve().parents[1]))")
        assert first is None or 0 < where < first.start(), script.name


@pytest.mark.slow
def test_a_benchmark_starts_without_pythonpath(tmp_path: Path) -> None:
    """Catches the same where it is run, from another folder too."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [sys.executable, str(ROOT / "benchmarks" / "channel_stage.py"), "--help"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
