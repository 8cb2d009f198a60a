"""The site and the README, both made from the notebooks: `python tools/docs.py site [--out _docs]`, `python tools/docs.py readme`.

nbdev prepares the notebooks and Quarto renders them. Where Quarto is not installed smalldocs, which is pure Python and reads the same
`_quarto.yml`, takes its place, and `offline` mends what it does differently. Either way the site can be read from the disk, without a
server and without a network: every link is relative and every script and font lies beside the pages.
"""
import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbdev.serve
import nbformat
import yaml
from nbdev.config import get_config
from nbdev.doclinks import _nbpath2html as page_path  # api/00_core.ipynb -> api/core.html, the name that nbdev's own links use
from nbdev.process import Processor
from nbdev.processors import FilterDefaults, exec_show_docs, mv_exports
from nbdev.serve_drv import exec_nb
from smalldocs.site import build as smalldocs

ROOT = Path(__file__).resolve().parent.parent
KATEX = Path("/usr/share/javascript/katex")  # Debian's libjs-katex, with the fonts of fonts-katex
CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/katex@[^/]+/dist")
FETCH = 'const r = await fetch(offset + "search.json");\n      index = await r.json();'
LOAD = ('await new Promise((ok, no) => document.head.append(Object.assign(document.createElement("script"), '
        '{ src: offset + "search.js", onload: ok, onerror: no })));\n      index = window.searchIndex;')
SAYS_NOTHING = re.compile(r"\*?Call self as a function\.\*?")  # what Python says of a function without a docstring
WIDGET = "application/vnd.jupyter.widget-view+json"


class show_source(Processor):
    "A notebook that teaches shows its code: on the site `export` means what `exports` means to nbdev, but for cells that only import."
    def cell(self, cell):
        if "export" not in cell.directives_ or all(isinstance(o, ast.Import | ast.ImportFrom) for o in ast.parse(cell.source).body): return
        cell.directives_["exports"] = cell.directives_.pop("export")


class docs_before_source(Processor):
    "The documentation of an exported cell stands above its code, in the order of its definitions (nbdev leaves them in reverse)."
    def begin(self):
        cells = self.nb.cells
        for cell in [c for c in cells if c.cell_type == "code" and "exports" in c.directives_]:
            i = j = cells.index(cell)
            while j + 1 < len(cells) and getattr(cells[j + 1], "has_sd", False): j += 1
            cells[i:j + 1] = cells[i:j + 1][::-1]


class document_library(exec_show_docs):
    "Document the library as it is installed. No other cell is run: nbdev would run each that imports something, training included."
    def begin(self):
        super().begin()
        for name in (c.directives_["default_exp"][0] for c in self.nb.cells if "default_exp" in c.directives_):
            self.k.run_cell(f"from {get_config().lib_name}.{name} import *")

    def __call__(self, cell):
        if "show_doc(" in (cell.source or ""): super().__call__(cell)


class SiteFilter(FilterDefaults):
    swap = {mv_exports: docs_before_source, exec_show_docs: document_library}
    def base_procs(self): return [show_source] + [self.swap.get(p, p) for p in super().base_procs()]


def doc_url():
    cfg = get_config(path=ROOT)
    return cfg.doc_host + cfg.doc_baseurl + "/"


def passing(out):
    "A progress bar, or the empty frame of a widget's output: nothing to read on a page."
    text = str(out.get("data", {}).get("text/plain", ""))
    return WIDGET in out.get("data", {}) and ("%|" in text or text == "Output()")


def static(out):
    "What stands on the page for a widget."
    if WIDGET in out.get("data", {}): out.data = {"text/markdown": "*A widget stands here: run the notebook to use it.*"}
    return out


def processed(build):
    "The notebooks as nbdev shows them, in `build`, with `_quarto.yml` less the sections that have no page yet."
    os.chdir(ROOT)
    nbdev.serve.FilterDefaults = SiteFilter
    shutil.copytree(nbdev.serve.proc_nbs(force=True, n_workers=0), build, dirs_exist_ok=True)
    shutil.rmtree(ROOT / "_proc")
    for path in build.rglob("*.ipynb"):
        nb = nbformat.reads(SAYS_NOTHING.sub("", path.read_text()), as_version=4)
        for c in nb.cells:
            if "outputs" in c: c.outputs = [static(o) for o in c.outputs if not passing(o)]
        nbformat.write(nb, path)
    cfg = yaml.safe_load((ROOT / "_quarto.yml").read_text())
    side = cfg["website"]["sidebar"]
    globs = lambda o: [o["contents"]] if isinstance(o["contents"], str) else o["contents"]
    side["contents"] = [o for o in side["contents"] if "section" not in o or any(any(build.glob(g)) for g in globs(o))]
    (build / "_quarto.yml").write_text(yaml.safe_dump(cfg, sort_keys=False))


def link(href, page, site, ids):
    "The address that `page` should use for `href`: relative, and under the name that nbdev gives the page."
    path, mark, anchor = href.partition("#")
    if path.startswith(doc_url()):
        target = site / path.removeprefix(doc_url())
        path = os.path.relpath(target, page.parent)
        # nbdev also links to methods, which have a place of their own on the page only where the notebook documents them
        anchor = next((a for a in (anchor, anchor.split(".")[0]) if a in ids.get(target, ())), "")
    if not path.endswith(".html") or "://" in path: return href
    return str(page_path(Path(path))) + (mark and anchor and mark + anchor)


def maths(html, page, site):
    "KaTeX from the site itself; without it formulas stay as they are typed."
    if not CDN.search(html): return html
    if not KATEX.is_dir():
        print(f"{page.relative_to(site)}: formulas stay as LaTeX, since libjs-katex is not installed")
        return re.sub(rf"<(link|script)[^>]*{CDN.pattern}[^>]*>(</script>)?", "", html)
    libs = site / "site_libs" / "katex"
    if not libs.exists():
        (libs / "contrib").mkdir(parents=True)
        for o in ("katex.min.css", "katex.min.js"): shutil.copy(KATEX / o, libs)
        shutil.copy(KATEX / "contrib" / "auto-render.js", libs / "contrib" / "auto-render.min.js")
        shutil.copytree(KATEX / "fonts", libs / "fonts", ignore=shutil.ignore_patterns("*.ttf", "*.woff"))
    return CDN.sub(os.path.relpath(libs, page.parent), html)


def offline(site):
    "Mend what smalldocs leaves: page names, absolute links, KaTeX and the search, which a browser does not let read files by `fetch`."
    pages = list(site.rglob("*.html"))
    ids = {page_path(p): set(re.findall(r'\bid="([^"]+)"', p.read_text())) for p in pages}
    for page in pages:
        html = re.sub(r'href="([^"]+)"', lambda m: f'href="{link(m[1], page, site, ids)}"', page.read_text())
        page.write_text(maths(html, page, site))
        page.rename(page_path(page))
    index = site / "search.json"
    if not index.exists(): return
    entries = json.loads(index.read_text())
    for e in entries: e["href"] = e["objectID"] = link(e["href"], site / "index.html", site, ids)
    (site / "search.js").write_text("window.searchIndex = " + json.dumps(entries, ensure_ascii=False))
    index.unlink()
    js = site / "site_libs" / "smalldocs.js"
    if FETCH not in js.read_text(): sys.exit("tools/docs.py: smalldocs.js has changed, so that the search would not work from the disk")
    js.write_text(js.read_text().replace(FETCH, LOAD))


def site(out):
    with tempfile.TemporaryDirectory() as tmp:
        build = Path(tmp)
        processed(build)
        if shutil.which("quarto"): subprocess.run(["quarto", "render", "--no-execute"], cwd=build, check=True)
        else:
            for w in smalldocs(build, quiet=True).warnings:
                if not re.search(r"output-file|html-math-method|respect-user-color-scheme", w): print(w)  # dealt with here, or what it does anyway
            offline(build / "_docs")
        for css in (build / "_docs").rglob("*.css"):  # a theme that asks for its font; the reader's own will do
            css.write_text(re.sub(r"@import url\(['\"]?https?:[^)]*\);?", "", css.read_text()))
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(build / "_docs", out)
    print(f"{out}: {len(list(out.rglob('*.html')))} pages; open {out / 'index.html'} in a browser")


def readme_link(href, notebooks):
    "A link of the index as the README, one folder further up, must have it."
    if href.startswith(doc_url()):
        page, mark, _ = href.removeprefix(doc_url()).partition("#")
        return notebooks.get(page, href)
    return href if re.match(r"[a-z]+:|#|/", href) else os.path.normpath(os.path.join("nbs", href))


def readme(out):
    from nbconvert import MarkdownExporter
    nbs = ROOT / "nbs"
    notebooks = {str(page_path(p.relative_to(nbs))): str(p.relative_to(ROOT)) for p in nbs.rglob("*.ipynb")}
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(nbs)
        exec_nb(Path("index.ipynb"), Path(tmp) / "index.ipynb", SiteFilter)
        nb = nbformat.read(Path(tmp) / "index.ipynb", as_version=4)
    front = yaml.safe_load(nb.cells.pop(0).source.strip().strip("-"))
    md, res = MarkdownExporter().from_notebook_node(nb)
    if res["outputs"]: sys.exit("nbs/index.ipynb: the README cannot hold a picture made by a cell: save it in nbs/images and link to it")
    md = re.sub(r"(?<=\]\()([^)\s]+)(?=\))", lambda m: readme_link(m[1], notebooks), md)
    md = re.sub(r"\n{3,}", "\n\n", md).replace("<!-- WARNING: THIS FILE WAS AUTOGENERATED! DO NOT EDIT! -->", "")
    head = f"<!-- Made from nbs/index.ipynb by `make export`: edit that. -->\n\n# {front['title']}\n\n> {front['description']}\n\n"
    out.write_text(head + md.strip() + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["site", "readme"])
    parser.add_argument("--out", type=Path, help="default: _docs for the site, README.md for the README")
    args = parser.parse_args()
    if args.what == "site": site((args.out or ROOT / "_docs").resolve())
    else: readme((args.out or ROOT / "README.md").resolve())
