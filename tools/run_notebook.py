"""Run notebooks in place and keep their outputs: `python tools/run_notebook.py nbs/api/00_core.ipynb ...`

The state of widgets is dropped afterwards, since it would store every picture a second time.
"""
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

for name in sys.argv[1:]:
    path, t0 = Path(name), time.time()
    nb = nbformat.read(path, as_version=4)
    limit = None if os.environ.get("SEMIML_SCALE") == "paper" else 3600  # s, of a cell
    client = NotebookClient(nb, timeout=limit, kernel_name="python3", resources={"metadata": {"path": str(path.parent or ".")}})
    try: client.execute()
    except Exception:
        # an hour's outputs are worth keeping; with _ nbdev passes over it; the notebook itself stays as it was
        nbformat.write(nb, path.with_name(f"_{path.stem}.failed.ipynb"))
        raise
    nb.metadata.pop("widgets", None)
    for cell in nb.cells: cell.metadata.pop("execution", None)
    tmp = path.with_suffix(".tmp")
    nbformat.write(nb, tmp)
    os.replace(tmp, path)
    print(f"{name}: {time.time() - t0:.0f} s, {path.stat().st_size / 1024:.0f} KiB")
