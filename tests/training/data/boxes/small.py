"""Pictures of coloured boxes in the layouts of Pascal VOC, COCO, YOLO and labelled PNGs."""

import json
from types import SimpleNamespace

import numpy as np
from PIL import Image

# The colour of a class, far from each other and from what is around.
COLOURS = {"blue": (20, 20, 230), "green": (20, 230, 20), "red": (230, 20, 20)}
NAMES = tuple(COLOURS)
GROUND = (120, 120, 120)
WIDTH, HEIGHT = 40, 30


def recipe(**fields):
    """What data are told, by default to leave pictures as they are."""
    fields = {
        "image_size": 40,
        "scale": (1.0, 1.0),
        "flip": False,
        "max_boxes": 4,
        "min_box": 1.0,
        "seed": 0,
        "step_batch": 4,
        "validation_share": 0.25,
        "max_unreadable": 0.0,
        "exif_orientation": True,
        "masks": False,
        "max_pixels": 10_000,
        **fields,
    }
    return SimpleNamespace(**fields, steps_per_pass=lambda images: images // fields["step_batch"])


def picture(objects, width=WIDTH, height=HEIGHT):
    """Pixels with filled boxes: pairs of a class's name and left, top, right, bottom."""
    pixels = np.full((height, width, 3), GROUND, "uint8")
    for name, (left, top, right, bottom) in objects:
        pixels[top:bottom, left:right] = COLOURS.get(name, GROUND)
    return pixels


def extent(image, name):
    """The box around all pixels of a colour: those nearer to it than to what is around."""
    near, far = (np.abs(image - np.float32(colour)).sum(-1) for colour in (COLOURS[name], GROUND))
    rows, columns = np.nonzero((near < far) & (near < 200))
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None


def save(path, objects, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(objects)).save(path, **options)
    return path


def objects_of(number):
    """One or two boxes, others for each number."""
    first = (NAMES[number % 3], (2 + number, 3, 12 + number, 13))
    second = (NAMES[(number + 1) % 3], (25, 14 + number % 5, 33, 28))
    return [first, second][: 1 + number % 2]


def write_xml(file, objects, width=WIDTH, height=HEIGHT, difficult=()):
    """Annotations as Pascal VOC writes them: pixels count from 1, the last one belongs to the box."""
    file.parent.mkdir(parents=True, exist_ok=True)
    elements = "".join(
        f"<object><name>{name}</name><difficult>{int(number in difficult)}</difficult><bndbox><xmin>{left + 1}</xmin>"
        f"<ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for number, (name, (left, top, right, bottom)) in enumerate(objects)
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    file.write_text(f"<annotation><filename>nonsense.jpg</filename>{size}{elements}</annotation>")


def write_voc(folder, train, validation=0, suffix=".png", objects=objects_of):
    """Pictures 0 to `train` for training, the rest for validation."""
    for number in range(train + validation):
        save(folder / "JPEGImages" / f"p{number}{suffix}", objects(number))
        write_xml(folder / "Annotations" / f"p{number}.xml", objects(number))
    write_list(folder, "train", range(train))
    if validation:
        write_list(folder, "val", range(train, train + validation))
    return folder


def write_list(folder, name, numbers):
    file = folder / "ImageSets" / "Main" / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"p{number}\n" for number in numbers))


# Category ids of COCO have gaps.
CATEGORIES = {"blue": 1, "green": 7, "red": 90}


def mask_of(box, width=WIDTH, height=HEIGHT):
    """An ellipse that fills a box: bools `(height, width)`."""
    left, top, right, bottom = box
    y, x = np.mgrid[:height, :width] + 0.5
    return ((2 * x - left - right) / (right - left)) ** 2 + ((2 * y - top - bottom) / (bottom - top)) ** 2 <= 1


def runs(mask):
    """The mask as COCO's uncompressed run lengths."""
    ends = np.flatnonzero(np.diff(np.pad(mask.T.ravel().astype(int), (1, 0)), append=2))
    return {"size": [*mask.shape], "counts": np.diff([0, *ends]).tolist()}


def add_masks(content):
    """Adds ellipses to all annotations of a COCO file."""
    for row in content["annotations"]:
        left, top, width, height = row["bbox"]
        row["segmentation"] = runs(mask_of((left, top, left + width, top + height)))


def write_coco(folder, split, numbers, objects=objects_of, change=None):
    """Pictures and the JSON file of a split."""
    images, annotations = [], []
    for number in numbers:
        save(folder / split / f"{number:012}.png", objects(number))
        images.append({"id": 100 + number, "file_name": f"{number:012}.png", "width": WIDTH, "height": HEIGHT})
        for name, (left, top, right, bottom) in objects(number):
            box = [left, top, right - left, bottom - top]
            row = {"id": len(annotations) + 1, "image_id": 100 + number, "category_id": CATEGORIES[name], "bbox": box}
            annotations.append({**row, "area": 0.5 * box[2] * box[3], "iscrowd": 0})
    # Not in the order of their ids.
    categories = [{"id": CATEGORIES[name], "name": name} for name in ("red", "blue", "green")]
    content = {"images": images, "annotations": annotations, "categories": categories}
    if change:
        change(content)
    file = folder / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return folder


def write_yolo(folder, numbers, objects=objects_of):
    """Pictures with boxes as polygons, and data.yaml."""
    for number in numbers:
        save(folder / "images" / f"p{number}.png", objects(number))
        lines = (_polygon(NAMES.index(name), *box) for name, box in objects(number))
        file = folder / "labels" / f"p{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))
    (folder / "data.yaml").write_text(f"train: images\nnames: [{', '.join(NAMES)}]\n")
    return folder


def _polygon(number, left, top, right, bottom):
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return f"{number} {' '.join(f'{x / WIDTH} {y / HEIGHT}' for x, y in corners)}\n"


def write_labelled(folder, numbers, objects=objects_of):
    """Pictures, and in a folder for each class PNGs with the number of the object of each pixel."""
    for number in numbers:
        save(folder / "images" / f"p{number}.png", objects(number))
        for name in NAMES:
            pixels = np.zeros((HEIGHT, WIDTH), "uint8")
            for place, (own, (left, top, right, bottom)) in enumerate(objects(number), start=1):
                pixels[top:bottom, left:right] = place * (own == name)
            file = folder / "masks" / name / f"p{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return folder
