"""inferway.yaml: what is not understood is refused, because it would be lost silently otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferway_cli.console import CommandError
from inferway_cli.version_config import find_config, read_config


def test_every_key_arrives(tmp_path: Path):
    """What the publisher chose becomes part of the version."""
    path = tmp_path / "inferway.yaml"
    path.write_text("forbid_nan_inputs: [image]\nidempotent: false\nmax_batch_rows: 4\nlabels: {a: 1, b: x}\n")
    config = read_config(path)
    assert list(config.forbid_nan_inputs) == ["image"]
    assert config.HasField("idempotent")
    assert not config.idempotent
    assert config.max_batch_rows == 4
    assert dict(config.labels) == {"a": "1", "b": "x"}


def test_an_empty_file_chooses_nothing(tmp_path: Path):
    """`idempotent` unset means true, so it must stay unset."""
    path = tmp_path / "inferway.yaml"
    path.write_text("# nothing yet\n")
    assert not read_config(path).HasField("idempotent")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_rows: 4", "unknown key 'max_rows'"),
        ("max_batch_rows: many", "max_batch_rows must be a whole number"),
        ("max_batch_rows: true", "max_batch_rows must be a whole number"),
        ("max_batch_rows: -1", "max_batch_rows must be a whole number"),
        ("isolation: thread", "isolation must be process, group or inline"),
        ("memory_bytes: 1e9", "memory_bytes must be a whole number"),
        ("idempotent: 1", "idempotent must be true or false"),
        ("forbid_nan_inputs: image", "forbid_nan_inputs must be a list"),
        ("labels: [a]", "labels must be names"),
        ("- description", "must hold keys and values"),
        ("{", "cannot be read as YAML"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, said: str):
    """In one line."""
    path = tmp_path / "inferway.yaml"
    path.write_text(text)
    with pytest.raises(CommandError) as caught:
        read_config(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_in_the_model_comes_before_the_one_beside_it(tmp_path: Path):
    """Beside it, so that an export that empties the directory keeps it."""
    model = tmp_path / "model"
    model.mkdir()
    assert find_config(model) is None
    (tmp_path / "inferway.yaml").touch()
    assert find_config(model) == tmp_path / "inferway.yaml"
    (model / "inferway.yaml").touch()
    assert find_config(model) == model / "inferway.yaml"
