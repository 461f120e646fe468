"""Recipes: find, extend, override, validate. A recipe is TOML; schemas/ are the lists of its keys."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from vlcli.errors import UsageError
from vlcli.models.config import DualEncoderConfig, Settings
from vlcli.schemas.classification import ClassifyRecipe
from vlcli.schemas.distillation import DistillRecipe
from vlcli.schemas.key_values import KeyValuesRecipe
from vlcli.schemas.pretraining import Recipe
from vlcli.schemas.text_to_image import STAGES, DiffusionRecipe

FINETUNE = (
    "finetune"  # the folder of recipes that start from a checkpoint and have no whole model of their own
)
# The model that finetune/PAPER-… is shown and tried on, where there is no checkpoint.
MODELS = {
    "align": "align",
    "emoji": "emoji-r2d2",
    "filip": "filip-base",
    "r2d2": "r2d2-vit-b",
    "vtab": "align",
    "wukong": "wukong-vit-b",
}


def directories(folder: str = "") -> list[Path]:
    """Where named recipes are: in the installed package, else beside it in the source tree."""
    here = Path(__file__).parent
    places = (here / "_data" / "recipes" / folder, here.parent / "recipes" / folder)
    return [place for place in places if place.is_dir()]


def names(folder: str = "") -> list[str]:
    """Every named recipe, sorted."""
    return sorted({file.stem for directory in directories(folder) for file in directory.glob("*.toml")})


def find(name: str, folder: str = "") -> Path:
    """The file of a recipe: a path ending in .toml, or a name."""
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise UsageError(f"no recipe file {name}")
        return Path(name)
    for directory in directories(folder):
        if (directory / f"{name}.toml").is_file():
            return directory / f"{name}.toml"
    raise UsageError(f"no recipe is called {name!r}{_nearest(name, names(folder))}")


def load_recipe(name: str, overrides: list[str] | None = None) -> Recipe:
    """The validated recipe NAME or FILE.toml of `pretrain`, its `extends` followed and `table.key=value` overrides
    applied.

    Raises UsageError naming the file, the key, and the nearest key that exists, and for a recipe of another command.
    """
    found = load_any(name, overrides)
    if isinstance(found, DistillRecipe):
        raise UsageError(f"recipe {name} is of teacher learning", remedy="vlcli distill --recipe takes it")
    return found


def load_distill_recipe(name: str, overrides: list[str] | None = None) -> DistillRecipe:
    """The same, of `distill`."""
    found = load_any(name, overrides)
    if isinstance(found, Recipe):
        raise UsageError(f"recipe {name} has no table [distill]", remedy="vlcli pretrain --recipe takes it")
    return found


def load_any(name: str, overrides: list[str] | None = None) -> Recipe | DistillRecipe:
    """The validated recipe of whichever training command from nothing: those with a table `[distill]` are of `distill`.

    `finetune/NAME` is of `finetune`, and a recipe only on some model.
    """
    if name.startswith(f"{FINETUNE}/"):
        raise UsageError(f"recipe {name} starts from a checkpoint", remedy="vlcli finetune --recipe takes it")
    values = _extended(find(name), ())
    for override in overrides or []:
        _set(values, override)
    if "stages" in values:
        raise UsageError(
            f"recipe {name} starts from a checkpoint",
            remedy="vlcli finetune --task classify --recipe takes it",
        )
    if "distill" in values:
        return _validated(name, values, DistillRecipe)
    return _validated(name, values, Recipe)


def load_finetune_recipe(
    name: str, architecture: dict[str, Any], overrides: list[str] | None = None
) -> Recipe:
    """As `load_recipe`, for a model that is there already: what the recipe says of it changes its `architecture`, and
    `model.ranking = false` leaves the ranking part of an R2D2 behind.

    Raises UsageError for a recipe that wants a ranking part where the architecture has none.
    """
    values = _finetune_values(name, overrides)
    if "stages" in values:
        raise UsageError(f"recipe {name} is of --task classify")
    if "stage" in values:
        raise UsageError(f"recipe {name} is of --task t2i --stage {values['stage']}")
    if "diffusion" in values:
        raise UsageError(f"recipe {name} is of --task diffusion-kv")
    changes = dict(values.get("model", {}))
    if changes.get("ranking") is False:
        architecture = architecture | {"ranking": None}
        del changes["ranking"]
    if "ranking" in changes and architecture.get("ranking") is None:
        raise UsageError(f"recipe {name} trains an R2D2, the checkpoint is a dual encoder")
    values["model"] = merge(architecture, changes)
    return _validated(name, values, Recipe)


def load_classify_recipe(name: str, overrides: list[str] | None = None) -> ClassifyRecipe:
    """A recipe of `finetune --task classify`, which says nothing of the model. Raises UsageError as the others."""
    values = _finetune_values(name, overrides)
    if "stages" not in values:
        raise UsageError(f"recipe {name} is not of --task classify", remedy="those have a key stages")
    values.pop("stage", None)  # of a run's recipe.toml
    return _validated(name, values, ClassifyRecipe)


def with_settings(recipe: ClassifyRecipe, settings: dict[str, Any]) -> ClassifyRecipe:
    """The recipe with values for some of its keys, such as "all.lr". UsageError as for --set."""
    values = recipe.model_dump()
    for key, value in settings.items():
        _put(values, key, value, f"trials.grid {key!r}")
    return _validated(recipe.name, values, ClassifyRecipe)


def load_key_values_recipe(name: str, overrides: list[str] | None = None) -> KeyValuesRecipe:
    """As `load_recipe`, of `finetune --task diffusion-kv`: a recipe with a table `[diffusion]`."""
    if "diffusion" not in _finetune_values(name, None):
        raise UsageError(f"recipe {name} has no table [diffusion]", remedy="it is of another --task")
    return _validated(name, _finetune_values(name, overrides), KeyValuesRecipe)


def load_stage_recipe(name: str, stage: str, overrides: list[str] | None = None) -> DiffusionRecipe:
    """The validated recipe of a stage of `finetune --task t2i` that trains a model of its own: "prior" or "decoder".

    Raises UsageError as `load_recipe`, and for a recipe of another stage or task.
    """
    values = _finetune_values(name, overrides)
    if (found := values.get("stage")) != stage:
        said = "none of --task t2i" if found is None else f"of --stage {found}"
        raise UsageError(f"recipe {name} is {said}", remedy=f'its key stage would be "{stage}"')
    return _validated(name, values, STAGES[stage])


def _finetune_values(name: str, overrides: list[str] | None) -> dict[str, Any]:
    values = _extended(find(name, FINETUNE), ())
    for override in overrides or []:
        _set(values, override)
    return values


def paper_model(name: str) -> DualEncoderConfig:
    """The model that a named recipe of `finetune` is shown and tried on."""
    stem = max((key for key in MODELS if f"{name}-".startswith(f"{key}-")), key=len)
    return load_recipe(MODELS[stem]).model


def load_finetune_on_its_paper(
    name: str, overrides: list[str] | None = None
) -> Recipe | DiffusionRecipe | KeyValuesRecipe | ClassifyRecipe:
    """A named recipe of `finetune`, on a model of its paper in place of a checkpoint's."""
    values = _finetune_values(name, overrides)
    stage = values.get("stage")
    found: Recipe | DiffusionRecipe | KeyValuesRecipe | ClassifyRecipe
    if "stages" in values:
        found = load_classify_recipe(name, overrides)
    elif "diffusion" in values:
        found = load_key_values_recipe(name, overrides)
    elif stage in STAGES:
        found = load_stage_recipe(name, stage, overrides)
    else:
        model = paper_model(name)
        found = load_finetune_recipe(name, model.model_dump(mode="json"), overrides)
    return found.model_copy(update={"name": f"{FINETUNE}/{found.name}"})


S = TypeVar("S", bound=Settings)


def _validated(name: str, values: dict[str, Any], schema: type[S]) -> S:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"recipe {name}: {explain(error, schema)}") from error


def _extended(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if file in seen:
        raise UsageError(f"recipe {file}: extends itself")
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {file}: {error}") from error
    values.setdefault("name", file.stem)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise UsageError(f"recipe {file}: extends must name one recipe")
    sibling = file.parent / (parent if parent.endswith(".toml") else f"{parent}.toml")
    base = _extended(sibling if sibling.is_file() else find(parent), (*seen, file))
    return merge(base, values)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, table by table."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result


def _set(values: dict[str, Any], override: str) -> None:
    """Apply one `table.key=value`; the value is TOML, and a bare word is a string."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"--set {override!r} is not table.key=value")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    _put(values, path.strip(), value, f"--set {override!r}")


def _put(values: dict[str, Any], path: str, value: Any, said: str) -> None:
    """Put a value where `path`, table.key, says."""
    *tables, key = path.split(".")
    place = values
    for table in tables:
        place = place.setdefault(table, {})
        if not isinstance(place, dict):
            raise UsageError(f"{said}: {table} is no table")
    place[key] = value


def explain(error: ValidationError, schema: Any = Recipe) -> str:
    """The first problem, as `table.key: what is wrong`, with the nearest known key where one is unknown."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    if problem["type"] != "extra_forbidden":
        return f"{'.'.join(path)}: {problem['msg']}" if path else problem["msg"]
    for part in path[:-1]:
        if part.isdigit():  # an element of a list, whose table the step before has found
            continue
        schema = _table(schema.model_fields[part].annotation)
    return f"{'.'.join(path)}: no such key{_nearest(path[-1], list(schema.model_fields))}"


def _table(annotation: Any) -> Any:
    """The settings inside `Settings`, `Settings | None` or `tuple[Settings, ...]`."""
    inside = [annotation, *get_args(annotation)]
    return next(kind for kind in inside if isinstance(kind, type) and issubclass(kind, Settings))


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"


def to_toml(recipe: Settings) -> str:
    """The resolved recipe as TOML that `load_recipe` reads back equal."""
    import tomli_w

    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))
