"""What all rules share: the typed configuration, and the names of receipts, logs and benchmarks."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

WORKFLOWS = Path(str(workflow.basedir))
sys.path.insert(0, str(WORKFLOWS.parent))

from pipeline.config import Config, load, split_settings
from pipeline.stages import Stage
from pipeline.store import manifest_path
from pipeline.workloads import plans


def configuration_file() -> Path:
    """The one file that describes the experiment; the demo's if none is given."""
    given = list(workflow.overwrite_configfiles)
    if len(given) > 1:
        raise WorkflowError(f"workflow must have one --configfile, got {len(given)}; one file is one experiment")
    path = Path(given[0]) if given else WORKFLOWS / "config" / "demo.yaml"
    inside = path.is_relative_to(Path.cwd())
    return path.relative_to(Path.cwd()) if inside else path


def overrides() -> list[str]:
    """The settings of --config set="a.b=1 c.d=[2, 3]", which blanks separate."""
    others = set(workflow.config_settings.config) - {"set"}
    given = config.get("set") or []
    texts = [given] if isinstance(given, str) else given
    if others or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise WorkflowError(
            '--config must be set="section.key=value ...", for instance --config set="training.steps=200 '
            'training.lead_hours=[168, 336]", or a list of such texts where a colon and a blank are inside; '
            f"got {', '.join(sorted(others)) or given}"
        )
    return [item for text in texts for item in split_settings(text)]


def settings() -> Config:
    """The configuration, checked: first with readable messages, then against the schema editors use."""
    try:
        loaded = load(CONFIG_FILE, OVERRIDES)
    except ValueError as error:
        raise WorkflowError(str(error)) from None
    resolved = loaded.model_dump(mode="json")
    validate(resolved, "../schemas/config.schema.json", set_default=False)
    config.clear()
    config.update(resolved)  # for the captions
    return loaded


def receipt(stage: str) -> Path:
    """The small file that says a stage is complete; its name carries a hash of all settings upstream."""
    return SETTINGS.paths.receipt(stage)


def beside(folder: str, stage: str, suffix: str) -> Path:
    """A log or benchmark of a stage, named as its receipt."""
    return SETTINGS.root / folder / receipt(stage).with_suffix(suffix).name


def compared_forecasts() -> list[str | Path]:
    """Forecasts from elsewhere, and their manifests, so that one that is replaced is scored again."""
    entries = [entry.path for entry in getattr(SETTINGS.evaluation, "compare", [])]  # of weather forecasts only
    return [path for p in entries for path in (p, manifest_path(Path(p))) if path == p or path.exists()]


def caption(stage: Stage) -> str:
    """The text of a stage's receipt in Snakemake's report: the workload's own where stages share a name."""
    own = Path("report") / SETTINGS.task / f"{stage.name}.rst"
    return f"../{own if (WORKFLOWS / own).exists() else Path('report') / f'{stage.name}.rst'}"


def pages(stage: Stage) -> list[Any]:
    """Outputs that Snakemake watches besides the receipt: only the report."""
    if stage.name != "report":
        return []
    return [report(SETTINGS.paths.report, caption=caption(stage), category=stage.category)]


def launch(ranks: int = 1) -> str:
    """The part of the command between `python` and the stage's name; torchrun starts the ranks on one machine."""
    if ranks == 1:
        return "-m pipeline"
    return f"-m model.parallel.torchrun --standalone --nproc-per-node={ranks} -m pipeline"


CONFIG_FILE = configuration_file()
OVERRIDES = overrides()
SETTINGS = settings()
HAS = {stage.name for stage in SETTINGS.stages}
PLAN = next(iter(plans(SETTINGS.task)))  # the first: of the stage that makes the store
OPTIONS = shlex.join(["--config", str(CONFIG_FILE), *(word for item in OVERRIDES for word in ("--set", item))])

# Jobs import our packages from this checkout, and use the Python that runs Snakemake unless conda provides another.
os.environ.update(
    PYTHONPATH=str(WORKFLOWS.parent),
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
)
