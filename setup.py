"""settings.ini is the one place for name, version and dependencies; this file only hands them to setuptools."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
cfg = ConfigParser(delimiters=["="])
cfg.read(here / "settings.ini", encoding="utf-8")
s = cfg["DEFAULT"]
# The README links to files beside it, which a package index does not have.
there = lambda m: f"]({s['git_url']}/{'raw' if m[1].endswith(('.png', '.jpg')) else 'blob'}/{s['branch']}/{m[1]})"
readme = re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", there, (here / "README.md").read_text(encoding="utf-8"))

setup(
    name=s["lib_name"],
    version=s["version"],
    description=s["description"],
    long_description=readme,
    long_description_content_type="text/markdown",
    author=s["author"],
    author_email=s["author_email"],
    url=s["git_url"],
    license="Apache-2.0",
    keywords=s["keywords"],
    packages=find_packages(include=["semiml", "semiml.*"]),
    package_data={"semiml": ["py.typed", "checkpoints/**"]},
    include_package_data=False,  # what is named here and nothing else
    python_requires=">=" + s["min_python"],
    install_requires=s["requirements"].split(),
    extras_require={
        "formats": s["formats_requirements"].split(),
        "mobilesam": s["mobilesam_requirements"].split(),
        "dev": s["dev_requirements"].split(),
    },
    entry_points={"console_scripts": s["console_scripts"].split(), "nbdev": [f"{s['lib_name']}={s['lib_path']}._modidx:d"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Typing :: Typed",
    ],
    zip_safe=False,
)
