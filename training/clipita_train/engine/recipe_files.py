"""Find recipes by name: modules of a package, or Python files."""

import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType


def recipe_names(package: ModuleType) -> list[str]:
    """Return the names of the recipes in a package."""
    return [module.name for module in pkgutil.iter_modules(package.__path__)]


def recipe_module(name: str, package: ModuleType) -> ModuleType | None:
    """Import the module of this name from the package, or run the Python file of this name; None if it is neither."""
    if name in recipe_names(package):
        return importlib.import_module(f"{package.__name__}.{name}")
    path = Path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.suffix == ".py" and path.is_file() else None
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
