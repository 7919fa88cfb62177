"""What the plug-in offers: one row a procedure. A task that the worker learns gets its menu entry from a row here.

GIMP asks for the procedures once and remembers them, so nothing here may depend on the worker. The installer notes what
the library that it belongs to can do, and only that is offered; a test compares these rows with the catalogue.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

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
    has_seed: bool = False
    invents: bool = True


ROWS = (
    Row(
        procedure="plug-in-restore-remove-object",
        label="Remove _Object...",
        blurb="Fill the selection with what is around it",
        help="Takes what is selected out of the picture, an object, writing or a scratch, and fills the hole with "
        "something that goes with what is around it. Select a little more than what is to vanish, with its shadow. "
        + PLAUSIBLE,
        doing="Remove Object",
        layer_name="Object removed",
        task="inpaint",
        methods=(
            ("fillnet", "Network and patches", "A network for what is large, patches of the picture for what is fine"),
            ("patches", "Patches", "Without a network: patches of the picture that fit together"),
            ("smooth", "Smooth", "Without texture: scratches, dust and thin writing on plain ground"),
        ),
        needs_selection="Nothing is selected. Select what is to be removed, and a little around it, then try again.",
        nothing_found="The fill looks just like what was there{where}. The image is unchanged.",
        has_seed=True,
    ),
    Row(
        procedure="plug-in-restore-demosaic",
        label="De-_mosaic...",
        blurb="Undo pixelation",
        help="Finds mosaics (pixelated places) inside the selection, or everywhere if nothing is selected, and "
        "replaces them by something plausible that has the same blocks when it is pixelated again. " + PLAUSIBLE,
        doing="De-mosaic",
        layer_name="De-mosaicked",
        task="demosaic",
        methods=(
            ("cellnet", "Network", "A network that was trained on mosaics"),
            ("bicubic", "Smooth interpolation", "Without a network: smooth, and nothing is made up"),
        ),
        searches=True,
        has_block=True,
        nothing_found="No mosaic was found{where}. If there is one: select it as exactly as you can, switch off "
        "'Measure the blocks', give their size, and try again.",
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
        procedure="plug-in-restore-deblur",
        label="De-_blur...",
        blurb="Sharpen what motion or the focus has blurred",
        help="Sharpens the selection, or the whole layer if nothing is selected, where the camera or what it saw has "
        "moved, or was out of focus. " + PLAUSIBLE,
        doing="De-blur",
        layer_name="De-blurred",
        task="deblur",
        methods=(("blurnet", "Fast network", "A compact network of our own"),),
        has_strength=True,
        nothing_found="Nothing to sharpen was found{where}. The image is unchanged.",
    ),
    Row(
        procedure="plug-in-restore-hide-faces",
        label="_Hide Faces...",
        blurb="Cover all faces of a picture",
        help="Finds the faces inside the selection, or everywhere if nothing is selected, and covers them so that "
        "nobody can tell who they are. Look at the result: a face that is turned away or half hidden may be missed.",
        doing="Hide Faces",
        layer_name="Faces hidden",
        task="automosaic",
        methods=(
            ("blocks", "Blocks", "Blocks of random shades: nothing of the face shows"),
            ("solid", "Black", "One colour"),
            ("blur", "Blur", "It looks hidden, and tells who it is to whoever has pictures to compare"),
            ("pixelate", "Plain mosaic", "It looks hidden, and tells who it is to whoever has pictures to compare"),
        ),
        searches=True,
        nothing_found="No face was found{where}. The image is unchanged.",
        invents=False,
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
    Row(
        procedure="plug-in-restore-find-faces",
        label="Find F_aces...",
        blurb="Select the faces of a layer",
        help="Looks for faces in the layer and selects them. The pixels stay as they are.",
        doing="Find Faces",
        finder="face",
        nothing_found="No face was found{where}. The selection is as it was.",
        invents=False,
    ),
)


def offered(names: Collection[str] | None) -> tuple[Row, ...]:
    """What can be served with the methods and finders of these names. None: not known, so all."""
    if names is None:
        return ROWS
    rows = [replace(row, methods=tuple(method for method in row.methods if method[0] in names)) for row in ROWS]
    return tuple(row for row in rows if row.methods or row.finder in names)
