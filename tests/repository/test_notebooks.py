"""The notebooks run from top to bottom as they stand, and find what their pictures show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.reference import nbclient, nbformat

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"

# Run after the last cell, with what the notebook has computed.
CHECKS = {
    "retrieval": """
first = [search(sentence, 1)[0][0].stem for sentence in sentences]
meant = ["gatto", "caffe", "razzo", "astronauta", "moto", "fiore", "tempio"]
assert sum(one == other for one, other in zip(first, meant, strict=True)) >= 6, first
assert mrr_at_k(scores, shown, 10) > 0.55  # by chance 0.21
assert result.protocol.photographs == 16 and result.protocol.captions == 32
""",
    "zero_shot": """
assert [with_article(n) for n in ("acqua", "squalo")] == ["dell'acqua", "uno squalo"]
assert report.photographs == 16 and [row.phrasing for row in report.rows] == ["bare", "article", "model"]
assert all(row.accuracy["Acc@5"].value > 0.8 for row in report.rows)  # by chance 0.31
best = {file.stem: answer[0].label for file, answer in zip(files, model.zero_shot(files, bank), strict=True)}
expected = {"gatto": "gatto", "caffe": "tazza di caffè", "razzo": "razzo", "astronauta": "astronauta",
            "moto": "motocicletta", "fiore": "fiore", "tempio": "tempio"}
assert expected.items() <= best.items(), best
""",
    "gallery": """
assert (by_colour.shape, by_number.shape, by_relation.shape) == ((5, 5), (4, 4), (3, 5))
assert by_colour.std(0).min() > 0.01  # the colour does change something
first = {sentence: search(sentence, 1)[0][0].stem for sentence in sentences}
expected = {"qualcosa di caldo da bere al bar": "caffe", "un mezzo a due ruote": "moto",
            "qualcosa da leggere": "pagina",
            "un edificio orientale con il tetto curvo": "tempio",
            "stelle lontanissime": "galassie"}
assert expected.items() <= first.items(), first
""",
}


def test_every_notebook_is_run_here_and_is_committed_without_outputs() -> None:
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in EXAMPLES.glob("*.ipynb")}
    assert notebooks.keys() == CHECKS.keys()
    for notebook in notebooks.values():
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(not cell.outputs and cell.execution_count is None for cell in cells)
        assert "%pip install --quiet" in cells[0].source


def test_the_gallery_needs_no_extra() -> None:
    """It installs clipita alone; the others, which import from `clipita_train`, install its extra."""
    sources = {path.stem: path.read_text("utf-8") for path in EXAMPLES.glob("*.ipynb")}
    for source in sources.values():
        assert ("from clipita_train" in source) == ("clipita[train]" in source)
    extras = ("clipita_train", "jax", "flax", "optax", "orbax", "scipy", "torch")
    barred = "; ".join(f"sys.modules[{name!r}] = None" for name in extras)
    code = f"import sys; {barred}; import clipita; clipita.load().encode_text('un fiore')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=EXAMPLES.parent)


@pytest.mark.filterwarnings("default")  # of zmq and Jupyter; the kernel is a process of its own
@pytest.mark.parametrize("name", CHECKS)
def test_notebook(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent), prepend=os.pathsep)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CHECKS[name]))
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert sum("text/html" in data for data in shown) >= 3
    errors = [o for cell in notebook.cells for o in cell.get("outputs", ()) if o.get("name") == "stderr"]
    assert errors == []
