"""Recipes by name: those that come with a package, or a Python file that defines one."""

import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType


def recipe_names(package: ModuleType) -> list[str]:
    """Names of the recipes that come with a package."""
    return [module.name for module in pkgutil.iter_modules(package.__path__)]


def recipe_module(name: str, package: ModuleType) -> ModuleType | None:
    """The module of that name in the package, or the Python file of that name, run; None if it is neither."""
    if name in recipe_names(package):
        return importlib.import_module(f"{package.__name__}.{name}")
    path = Path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.suffix == ".py" and path.is_file() else None
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
