"""The licences of what semiml needs: `python tools/licences.py [--out nbs/results/licences.csv]`

Starts from the requirements in settings.ini, follows those of the installed packages, and writes one line a package. Exit code 1 where a package
that is always installed is under the GPL or AGPL, or where no licence can be found: look it up, and add it to NOTES with where it stands.
"""
import argparse
import csv
import io
import re
import sys
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
NOTES = {  # where the metadata are silent
    "segment-anything": "Apache-2.0 (file LICENSE of facebookresearch/segment-anything)",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary (names the libraries of CUDA, holds none)",
}
COPYLEFT = re.compile(r"(?<!L)GPL|(?<!Lesser )General Public License")  # the LGPL of a library that is only imported is none


def licence(md):
    "What the metadata of a package say: an SPDX expression, else classifiers, else the first line of the text; '' if nothing."
    if md.get("License-Expression"): return md["License-Expression"]
    said = [c.rpartition(" :: ")[2] for c in md.get_all("Classifier", []) if c.startswith("License ::")]
    said = [c for c in said if c != "OSI Approved"]
    return " and ".join(said) or NOTES.get(canonicalize_name(md["Name"]), "") or " ".join((md.get("License") or "").split())[:60]


def needed(requirements, found=None):
    "{name: metadata} of the installed packages that these requirements (lines) lead to; None for one that is not installed."
    found, todo, seen = {} if found is None else found, [Requirement(r) for r in requirements], set()
    while todo:
        r = todo.pop(); name = canonicalize_name(r.name)
        if (name, frozenset(r.extras)) in seen: continue
        seen.add((name, frozenset(r.extras)))
        try: md = metadata(name)
        except PackageNotFoundError: found.setdefault(name, None); continue
        found[name] = md
        for more in map(Requirement, md.get_all("Requires-Dist", [])):
            if more.marker is None or any(more.marker.evaluate({"extra": e}) for e in (r.extras or {""})): todo.append(more)
    return found


def table(settings):
    "(rows of dict(package, version, licence, needed_by), what is wrong: sentences)"
    groups = {"": settings["requirements"].split()} | {k.removesuffix("_requirements"): v.split() for k, v in settings.items() if k.endswith("_requirements")}
    by = {extra: needed(lines) for extra, lines in groups.items()}
    rows, wrong = [], []
    for name in sorted(set().union(*by.values())):
        md = next(o[name] for o in by.values() if name in o); always = name in by[""]
        if md is None: wrong.append(f"{name}: is not installed, install the package with [dev]"); continue
        rows.append(dict(package=md["Name"], version=md["Version"], licence=licence(md) or "unknown",
                         needed_by="semiml" if always else ", ".join(f"[{e}]" for e, o in by.items() if name in o)))
        if not licence(md): wrong.append(f"{name}: its metadata name no licence, look it up and add it to NOTES in tools/licences.py")
        elif always and COPYLEFT.search(licence(md)):
            wrong.append(f"{name}: is under {licence(md)}, which no package that is always installed may be: move it to an extra")
    return rows, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a CSV file; without it the table is printed")
    args = parser.parse_args()
    cfg = ConfigParser(delimiters=["="]); cfg.read(ROOT / "settings.ini", encoding="utf-8")
    rows, wrong = table(cfg["DEFAULT"])
    text = io.StringIO(newline="")
    w = csv.DictWriter(text, list(rows[0]), lineterminator="\n"); w.writeheader(); w.writerows(rows)
    if args.out: args.out.write_text(text.getvalue(), encoding="utf-8")
    else: print(text.getvalue(), end="")
    for o in wrong: print(o, file=sys.stderr)
    sys.exit(bool(wrong))
