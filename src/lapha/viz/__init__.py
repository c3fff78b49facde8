"""Pictures: search trees on the Poincaré disk, curves, and self-contained HTML reports.

Trees need nothing beyond the core; curves need matplotlib and pages jinja2 (``pip install 'lapha[viz]'``).
"""

from lapha.viz.curves import Curve, accuracy_curve, learning_curve, reliability_diagram, scatter
from lapha.viz.disk import TreePicture, tree_figure, write_tree_page
from lapha.viz.layout import DiskLayout, disk_layout, geodesic_arc
from lapha.viz.report import Figure, Report, Section, Table, render_report, write_report

__all__ = [
    "Curve",
    "DiskLayout",
    "Figure",
    "Report",
    "Section",
    "Table",
    "TreePicture",
    "accuracy_curve",
    "disk_layout",
    "geodesic_arc",
    "learning_curve",
    "reliability_diagram",
    "render_report",
    "scatter",
    "tree_figure",
    "write_report",
    "write_tree_page",
]
