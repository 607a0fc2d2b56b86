# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""What tools/plot-* have in common: SVG on white ground, the same file from the same numbers. Needs matplotlib 3.10."""
import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "tandem"
from matplotlib import pyplot  # noqa: E402

subplots = pyplot.subplots


def save(figure, path):
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
