"""What the plug-in offers: one row a procedure. A task that the worker learns gets its menu entry from a row here.

GIMP asks for the procedures once and remembers them, so nothing here may depend on the worker; a test compares these
rows with the library's catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass

MENU = "<Image>/Filters/Restore"
NEW_LAYER, IN_PLACE = "new-layer", "in-place"
OUTPUTS = (
    (NEW_LAYER, "New layer", "The repair lies in a layer of its own, above the old pixels"),
    (IN_PLACE, "In place", "The layer itself is changed"),
)
OPERATIONS = (
    ("replace", "Replace the selection", ""),
    ("add", "Add to the selection", ""),
    ("subtract", "Subtract from the selection", ""),
    ("intersect", "Intersect with the selection", "Only what was selected before can be found"),
)
PLAUSIBLE = "What comes back is plausible, not evidence: it does not show who or what was there."


@dataclass(frozen=True)
class Row:
    """Either `task` is set (a procedure that restores) or `finder` (one that makes a selection)."""

    procedure: str
    label: str  # in the menu
    blurb: str
    help: str
    doing: str  # beside the progress bar
    layer_name: str = ""
    task: str = ""
    finder: str = ""
    methods: tuple[tuple[str, str, str], ...] = ()  # name in the catalogue, label, help; the default first
    searches: bool = False  # looks for what it restores; otherwise it is the selection, or the whole layer
    needs_selection: str = ""  # the sentence for a user who selected nothing
    nothing_found: str = ""
    has_block: bool = False
    has_strength: bool = False
    invents: bool = True


ROWS = (
    Row(
        procedure="plug-in-restore-demosaic",
        label="De-_mosaic...",
        blurb="Undo pixelation",
        help="Finds mosaics (pixelated places) inside the selection, or everywhere if nothing is selected, and replaces "
        "them by something plausible that has the same blocks when it is pixelated again. " + PLAUSIBLE,
        doing="De-mosaic",
        layer_name="De-mosaicked",
        task="demosaic",
        methods=(
            ("cellnet", "Network", "A network that was trained on mosaics"),
            ("bicubic", "Smooth interpolation", "Without a network: smooth, and nothing is made up"),
        ),
        searches=True,
        has_block=True,
        nothing_found="No mosaic was found{where}. Select the mosaic, as exactly as you can, and try again; if that does "
        "not help, switch off 'Measure the blocks' and give their size.",
    ),
    Row(
        procedure="plug-in-restore-derain",
        label="De-_rain...",
        blurb="Take rain streaks off a picture",
        help="Removes rain streaks from the selection, or from the whole layer if nothing is selected. " + PLAUSIBLE,
        doing="De-rain",
        layer_name="De-rained",
        task="derain",
        methods=(
            ("rainnet", "Fast network", "A compact network of our own"),
            ("did_mdn", "Density-aware network", "DID-MDN (Zhang & Patel 2018): slower, for dense rain"),
        ),
        has_strength=True,
        nothing_found="Nothing to remove was found{where}. The image is unchanged.",
    ),
    Row(
        procedure="plug-in-restore-find-mosaics",
        label="_Find Mosaics...",
        blurb="Select the pixelated places of a layer",
        help="Looks for mosaics (pixelated places) in the layer and selects them. The pixels stay as they are.",
        doing="Find Mosaics",
        finder="mosaic",
        nothing_found="No mosaic was found{where}. The selection is as it was.",
        invents=False,
    ),
)


def row_of(procedure: str) -> Row:
    return next(row for row in ROWS if row.procedure == procedure)
