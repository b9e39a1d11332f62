"""Packaging of Quantlytic: what is installed and which command it gives."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
REQUIREMENTS = [
    line.strip()
    for line in (HERE / "requirements.in").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]

setup(
    name="quantlytic",
    version="0.1.0",
    description="From free market-data APIs to an honest paper-trade record, as one Dagster asset graph",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["quantlytic_assets", "quantlytic_assets.*"]),
    package_data={
        "quantlytic_assets": [
            "vendors/sample_data/**/*",
            "market_data/wire/schemas/*.avsc",
            "universe/*.json",
            "pages/templates/*",
            "api/dashboard_files/**/*",
            "api/templates/*",
        ]
    },
    install_requires=REQUIREMENTS,
    entry_points={"console_scripts": ["quantlytic=quantlytic_assets.cli:main"]},
)
