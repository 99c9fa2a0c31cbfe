"""Build a data set from a recipe: read, compute columns, compare rows, select and write.

      OUT/train/, OUT/validation/   shards and their index, see clipita_train.data.shards
      OUT/manifest.parquet          all rows with all columns; `reason` says why a row is not kept, `record` where it is
      OUT/build.json                the hash of the build, and how many rows went in and came out
      OUT/images/                   downloaded images, see clipita_train.data.pairs.download
      OUT/translations.sqlite       translated captions, see clipita_train.data.pairs.translate
      OUT/work/                     intermediate results, named by their inputs; may be deleted after the build

A build that was interrupted goes on from its intermediate results.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout
from tqdm import tqdm

from clipita_train.data.builder.compare import COMPARISON_VERSION, TRAIN, VALIDATION, compare
from clipita_train.data.builder.judge import Judge
from clipita_train.data.builder.models import ProperNouns, Scores
from clipita_train.data.builder.output import finish, plan, write_manifest
from clipita_train.data.builder.read import Read, files_of
from clipita_train.data.builder.recipe import DataRecipe, Evaluation, Source
from clipita_train.data.builder.runners import Runner, Task
from clipita_train.data.builder.steps import Images, Run, Signatures, Step, Text
from clipita_train.data.builder.store import Chunk, digest, write_table
from clipita_train.data.builder.summary import summarize
from clipita_train.data.builder.translated import Translate
from clipita_train.data.pairs.download import download, image_path
from clipita_train.data.pairs.fetch import Settings
from clipita_train.engine.files import remove_partial, written_whole


def build(
    recipe: DataRecipe,
    root: Path,
    out: Path,
    runner: Runner,
    *,
    downloads: Settings | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Build the data set in the folder `out`, and return the contents of its `build.json`.

    If any process is killed, the same call goes on from the chunks that are done. The result is the same to the byte,
    and does not depend on the runner.

    Args:
        recipe: What to build.
        root: The folder that the recipe's files are relative to.
        out: The folder of the data set.
        runner: Where tasks run.
        downloads: How to download images. Addresses whose failure may have passed are tried again. None: images that
            have to be downloaded are left out, and counted.
        show_progress: Whether to show progress bars.

    Raises:
        FileNotFoundError: The recipe names files that are not there.
        ValueError: Another build works in `out`, or an evaluation set is not in its format.
        WorkerError: A process of the pool was ended from outside.
        StoppedError: Captions are still to be translated, and the engine or the budget allows no more.
        ChangedError: A photograph changed during the build.
    """
    root, out = root.resolve(), out.resolve()
    (out / "work").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / "work" / ".lock", timeout=0):
            for folder in (out, out / "work", out / TRAIN, out / VALIDATION):
                remove_partial(folder)
            return _Build(recipe, root, out, runner, downloads, show_progress).run()
    except Timeout:
        raise ValueError(f"another build works in {out}: wait for it, or build somewhere else") from None


@dataclass(frozen=True)
class _Build:
    recipe: DataRecipe
    root: Path
    out: Path
    runner: Runner
    downloads: Settings | None
    show_progress: bool

    @property
    def work(self) -> Path:
        return self.out / "work"

    def run(self) -> dict[str, Any]:
        reads = [self._read(source) for source in (*self.recipe.sources, *self.recipe.evaluation)]
        for read in (read for group in reads for read in group):
            read.forget_if_images_were_missing()
        self._finish("read", [read for group in reads for read in group])
        chunks = [chunk for group in reads for read in group for chunk in self._chunks(read)]
        self._download(chunks)
        self._translate([chunk for chunk in chunks if isinstance(chunk.source, Source) and chunk.source.translated])
        steps: list[Step] = [Text(), Images(self.root, self.out), Signatures()]
        for step in steps:
            self._step(chunks, step)
        training = [chunk for chunk in chunks if isinstance(chunk.source, Source)]
        self._models(training)
        self._judge(training)
        self._compare(training, [chunk for chunk in chunks if isinstance(chunk.source, Evaluation)])
        shards = plan(training, self.root, self.out, self.recipe.shard_records)
        if self.recipe.web_dataset:
            shards += [replace(shard, as_tar=True) for shard in shards]
        self._finish("shards", shards)
        finish(shards, self.out)
        hash_ = digest(self.recipe, [shard.output.name for shard in shards])
        write_manifest(training, self.out, hash_)
        tallies = {group[0].source.name: [read.tally for read in group] for group in reads}
        summary = {"recipe": self.recipe.name, "build": hash_, "sources": summarize(tallies, training)}
        with written_whole(self.out / "build.json") as partial:
            partial.write_text(json.dumps(summary, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return summary

    def _read(self, source: Source | Evaluation) -> list[Read]:
        return [
            Read(source, file, self.root, self.recipe.chunk_rows, self.work) for file in files_of(source, self.root)
        ]

    def _chunks(self, read: Read) -> list[Chunk]:
        return [Chunk(read.source, path) for path in read.chunks]

    def _download(self, chunks: Sequence[Chunk]) -> None:
        addresses = [chunk.read("address")["address"].to_pylist() for chunk in chunks]
        wanted = [(address, address) for some in addresses for address in some if address is not None]
        statuses = dict.fromkeys((address for address, _ in wanted), "no download")
        folder = self.out / "images"
        if wanted and self.downloads is not None:
            statuses = {address: outcome.status for address, outcome in download(wanted, folder, self.downloads)}
        for chunk, some in zip(chunks, addresses, strict=True):
            found = [(statuses.get(address), image_path(folder, address or "")) for address in some]
            files = [path.relative_to(self.out).as_posix() if status == "ok" else None for status, path in found]
            columns = {"download": [status for status, _ in found], "file": files}
            table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
            chunk.columns["download"] = self.work / f"download-{digest(chunk.rows.name, columns)}.parquet"
            if not chunk.columns["download"].exists():
                write_table(table, chunk.columns["download"])

    def _translate(self, chunks: Sequence[Chunk]) -> None:
        recipe = self.recipe
        if recipe.translation is not None:
            cache = self.out / "translations.sqlite"
            step = Translate(recipe.translation, cache, recipe.translation_budget)
            self._step(chunks, step, one_by_one=recipe.translation_budget is not None)

    def _step(self, chunks: Sequence[Chunk], step: Step, *, one_by_one: bool = False) -> None:
        runs = [self._run_of(step, chunk) for chunk in chunks]
        self._finish(step.name, runs, one_by_one=one_by_one)
        for chunk, run in zip(chunks, runs, strict=True):
            chunk.columns[step.name] = run.output

    def _run_of(self, step: Step, chunk: Chunk) -> Run:
        needs = [name for name in ("translate", *step.needs) if name in chunk.columns]
        inputs = (chunk.rows, *(chunk.columns[name] for name in needs))
        return Run(step, inputs, self.work, step.seen(inputs))

    def _models(self, chunks: Sequence[Chunk]) -> None:
        """Run the models only on sources that have a rule for their results, since models take most of the time."""
        rules = {source.name: source.rules for source in self.recipe.sources}
        tagged = [chunk for chunk in chunks if rules[chunk.source.name].propn_share is not None]
        self._step(tagged, ProperNouns(self.recipe.tagger))
        scored = [chunk for chunk in chunks if rules[chunk.source.name].min_score is not None]
        self._step(scored, Scores(self.recipe.scorer, self.root, self.out))

    def _judge(self, chunks: Sequence[Chunk]) -> None:
        for source in self.recipe.sources:
            translation = self.recipe.translation if source.translated else None
            language = source.language if translation is None else translation.target
            self._step([chunk for chunk in chunks if chunk.source == source], Judge(source.rules, language))

    def _compare(self, chunks: Sequence[Chunk], evaluation: Sequence[Chunk]) -> None:
        recipe, names = self.recipe, [path.name for chunk in (*chunks, *evaluation) for path in chunk.paths]
        near = (recipe.near_bits, recipe.near_share, recipe.evaluation_words)
        limits = (recipe.validation_share, recipe.concept_cap, [source.rules.copies for source in recipe.sources])
        key = digest(COMPARISON_VERSION, near, limits, names)
        outputs = [self.work / f"compare-{key}-{number:06}.parquet" for number in range(len(chunks))]
        if not all(output.exists() for output in outputs):
            for table, output in zip(compare(chunks, evaluation, recipe), outputs, strict=True):
                write_table(table, output)
        for chunk, output in zip(chunks, outputs, strict=True):
            chunk.columns["compare"] = output

    def _finish(self, name: str, tasks: Sequence[Task], *, one_by_one: bool = False) -> None:
        """Run the tasks that are not done: one by one in this process if asked for, otherwise with the runner."""
        missing = [task for task in tasks if not task.output.exists()]
        disable = None if self.show_progress else True  # None: only in a terminal
        with tqdm(total=len(tasks), initial=len(tasks) - len(missing), desc=name, unit="file", disable=disable) as bar:
            for _ in (task.run() for task in missing) if one_by_one else self.runner.run(missing):
                bar.update()
