"""Generates the Python modules, type stubs and public descriptors of the contract.

    python tools/gen_protos.py            writes them below protos/inferway
    python tools/gen_protos.py --check    exits 1 if what is committed differs
    python tools/gen_protos.py --image F  writes all protos, with comments, as the image F that buf reads

The protos of other projects (`inference`, `onnx`, `tensorflow`) keep their public package in the files users compile.
For inferway's own Python modules the package is renamed to `inferway.foreign.*`: two generated modules of one public
package in one process collide in protobuf's descriptor pool, and users do load `tritonclient` beside us. Servers
still answer on the public path, and reflection shows `descriptors.binpb`, which holds the public form.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).resolve().parent.parent / "protos"
FOREIGN = ("inference", "onnx", "tensorflow")
GENERATED_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def protoc(*arguments: str) -> None:
    """Runs the pinned compiler; raises CalledProcessError with its message shown."""
    import grpc_tools  # noqa: PLC0415 - only this tool's own environment has it

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    include = Path(importlib.import_module("google.rpc.status_pb2").__file__ or "").parents[2]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{well_known}", *arguments, f"-I{include}"]
    plugins = Path(sys.executable).parent
    subprocess.run(command, check=True, env=os.environ | {"PATH": f"{plugins}{os.pathsep}{os.environ['PATH']}"})


def stage(target: Path) -> list[str]:
    """Copies every proto below `target`, with foreign packages renamed, and returns the relative paths."""
    paths = []
    for source in sorted(PROTOS.rglob("*.proto")):
        if source.is_relative_to(PROTOS / "google"):  # a package brings the Python module
            continue
        relative = source.relative_to(PROTOS)
        text = source.read_text()
        if relative.parts[0] in FOREIGN:
            relative = Path("inferway/foreign") / relative
            text = re.sub(r"^package (\w+);", r"package inferway.foreign.\1;", text, flags=re.MULTILINE)
            text = re.sub(
                r'^import "(inference|onnx|tensorflow)/', r'import "inferway/foreign/\1/', text, flags=re.MULTILINE
            )
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        (target / relative).write_text(text)
        paths.append(str(relative))
    return paths


def generate(output: Path) -> None:
    """Writes all generated files below `output`."""
    with tempfile.TemporaryDirectory() as directory:
        staged = Path(directory)
        paths = stage(staged)
        own = [path for path in paths if "foreign" not in path]
        protoc(
            f"-I{staged}",
            f"--python_out={output}",
            f"--mypy_out=quiet:{output}",
            *paths,
        )
        protoc(f"-I{staged}", f"--grpc_python_out={output}", f"--mypy_grpc_out=quiet,only_async:{output}", *own)
    for path in list(output.rglob("*_pb2_grpc.py*")):
        if "_service_" not in path.name:
            path.unlink()
    for package in {path.parent for path in output.rglob("*_pb2.py")}:
        for level in (package, *package.relative_to(output).parents):
            folder = output / level
            if folder not in (output, output / "inferway"):
                (folder / "__init__.py").touch()
    write_image(output / "inferway" / "descriptors.binpb")


def write_image(path: Path, *options: str) -> None:
    """Writes the descriptors of all protos in their public form, with what they import."""
    path.parent.mkdir(parents=True, exist_ok=True)
    public = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    protoc(f"-I{PROTOS}", "--include_imports", *options, f"--descriptor_set_out={path}", *public)


def generated_files(root: Path) -> set[Path]:
    """Relative paths of what this tool owns below `root`."""
    below = (root / "inferway").rglob("*")
    found = {path.relative_to(root) for path in below if path.name.endswith(GENERATED_SUFFIXES)}
    return found | {Path("inferway/descriptors.binpb")}


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is committed instead of writing")
    parser.add_argument("--image", type=Path, help="write an image for buf there instead")
    options = parser.parse_args()
    if options.image:
        write_image(options.image, "--include_source_info")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory)
        generate(output)
        fresh, committed = generated_files(output), generated_files(PROTOS)
        if options.check:
            differing = [p for p in fresh & committed if not filecmp.cmp(output / p, PROTOS / p, shallow=False)]
            problems = sorted(map(str, (fresh ^ committed) | set(differing)))
            if problems:
                print("Generated files are stale; run `make gen` and commit:", *problems, sep="\n  ", file=sys.stderr)
            return 1 if problems else 0
        for stale in committed - fresh:
            (PROTOS / stale).unlink(missing_ok=True)
        for path in output.rglob("*"):
            if path.is_file():
                destination = PROTOS / path.relative_to(output)
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, destination)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
