"""Finds the documents: in a file, in the files of a directory, or on stdin."""

from __future__ import annotations

import sys
from pathlib import Path

from inferway import names
from inferway_cli.apply import values
from inferway_cli.apply.documents import Document, check_distinct, read_document
from inferway_cli.apply.nodes import Place, Problems, sections_of
from inferway_cli.apply.rollout_documents import RolloutDocument, read_rollout
from inferway_cli.console import CommandError
from inferway_cli.version_config import FILE_NAME

STDIN = "-"
MAX_BYTES = 1 << 20
"""Of a file of documents."""
_SUFFIXES = (".yaml", ".yml")


def read_documents(source: str) -> list[Document]:
    """The documents of a file, of the `.yaml` and `.yml` files directly in a directory, or of stdin for `-`.

    An `inferway.yaml` in a directory describes a version, and is left out. Raises Invalid with all that is wrong, and
    CommandError if there is nothing to read.
    """
    problems = Problems()
    documents: list[Document] = []
    for file, folder, text in _texts(source):
        if len(text) > MAX_BYTES:
            problems.add(Place(file, 1), f"more than {MAX_BYTES} characters are not read")
            continue
        found = (read_document(section, folder) for section in sections_of(text, file, problems))
        documents += [document for document in found if document is not None]
    check_distinct(documents, problems)
    problems.raise_if_any()
    if not documents:
        raise CommandError(f"{source} has no documents; `inferway apply --help` shows what one looks like")
    return documents


def read_rollout_document(source: str) -> RolloutDocument:
    """The one document of a file, which must be of kind Rollout; endpoint and version may be left out of it.

    Raises Invalid with all that is wrong, and CommandError if there is nothing to read.
    """
    problems = Problems()
    sections = [section for file, _, text in _texts(source) for section in sections_of(text, file, problems)]
    problems.raise_if_any()
    if len(sections) != 1 or sections[0].read("kind", values.text, "") != "Rollout":
        raise CommandError(f"{source} must hold one document of `kind: Rollout`; `inferway apply` takes the others")
    endpoint = sections[0].read("endpoint", lambda value: names.check_segment(values.text(value), "endpoint"), "")
    document = read_rollout(sections[0], endpoint)
    problems.raise_if_any()
    return document


def _texts(source: str) -> list[tuple[str, Path, str]]:
    """Name, folder and text of every file."""
    if source == STDIN:
        return [("stdin", Path(), sys.stdin.read(MAX_BYTES + 1))]
    path = Path(source)
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise CommandError(f"{path} has no {' or '.join(_SUFFIXES)} files")
    return [(str(file), file.parent, _read(file)) for file in files]


def _files(directory: Path) -> list[Path]:
    return sorted(
        path for path in directory.iterdir() if path.suffix in _SUFFIXES and path.name != FILE_NAME and path.is_file()
    )


def _read(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not UTF-8: {error}") from None
