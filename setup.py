"""settings.ini is the one place for name, version and dependencies; this file only hands them to setuptools."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
cfg = ConfigParser(delimiters=["="])
cfg.read(here / "settings.ini", encoding="utf-8")
s = cfg["DEFAULT"]

setup(
    name=s["lib_name"],
    version=s["version"],
    description=s["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=s["author"],
    author_email=s["author_email"],
    url=s["git_url"],
    license="Apache-2.0",
    keywords=s["keywords"],
    packages=find_packages(include=["semiml", "semiml.*"]),
    include_package_data=True,
    python_requires=">=" + s["min_python"],
    install_requires=s["requirements"].split(),
    extras_require={
        "formats": s["formats_requirements"].split(),
        "mobile": s["mobile_requirements"].split(),
        "dev": s["dev_requirements"].split(),
    },
    entry_points={"console_scripts": s["console_scripts"].split(), "nbdev": [f"{s['lib_name']}={s['lib_path']}._modidx:d"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
    ],
    zip_safe=False,
)
