"""Pictures: one page in which a person reads problems, trees and training, and an animation of a search."""

from lapha.viz.animate import write_animation
from lapha.viz.curves import Chart, Curve, accuracy_curve, learning_curve, reliability_diagram, scatter
from lapha.viz.layout import DiskLayout, disk_layout, geodesic_arc, radial_scale
from lapha.viz.page import (
    Page,
    PageRun,
    PageTree,
    Section,
    Table,
    read_page,
    render_page,
    tree_page,
    write_page,
    write_tree_page,
)
from lapha.viz.picture import TreePicture, tree_data

__all__ = [
    "Chart",
    "Curve",
    "DiskLayout",
    "Page",
    "PageRun",
    "PageTree",
    "Section",
    "Table",
    "TreePicture",
    "accuracy_curve",
    "disk_layout",
    "geodesic_arc",
    "learning_curve",
    "radial_scale",
    "read_page",
    "reliability_diagram",
    "render_page",
    "scatter",
    "tree_data",
    "tree_page",
    "write_animation",
    "write_page",
    "write_tree_page",
]
