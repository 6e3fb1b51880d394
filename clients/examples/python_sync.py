"""Every task of a gateway from a plain program: python_sync.py [PHOTO], with $ROBUST_SYNTHESIS_SERVER set."""

import sys

from PIL import Image

from robust_synthesis.client import Client, NotFound, Overloaded
from robust_synthesis.specs import PaintFeatures

photo = Image.open(sys.argv[1]) if len(sys.argv) > 1 else Image.linear_gradient("L").convert("RGB")
middle = (photo.width // 3, photo.height // 3, photo.width // 3, photo.height // 3)

with Client() as client:
    model = client.model()
    first, second = model.classes[:2]
    print(f"{model.name} {model.version}: {', '.join(model.classes)}")
    print("the photo:", client.classify(photo, top=3))

    result = client.generate(first, seed=1, count=2)
    result.save("generated.png")
    print(
        f"{first}: {result.pictures[0].probability_after:.2f}, seed {result.pictures[0].seed}, {result.seconds:.2f} s"
    )

    client.inpaint(photo, box=middle, paste_back=True).save("inpainted.png")
    client.translate(photo, second).save("translated.png")
    client.super_resolve(photo, factor=2).save("enlarged.png")
    client.sketch_to_image(photo, second).save("drawn.png")
    client.maximize_class(photo, second).save("maximized.png")
    client.paint_features(photo, box=middle, unit=client.units()[0].unit).save("painted.png")

    with client.edit(photo) as session:  # each edit starts from the result of the last
        brush, corner = PaintFeatures(target=second), (0, 0, session.size // 2, session.size // 2)
        session.apply(brush, box=corner).result()
        session.apply(brush, box=corner).result()
        session.undo()
        session.image.save("edited.png")

    try:
        client.generate("no such class")
    except NotFound as error:
        print(error)
    except Overloaded as error:
        print(f"try again in {error.retry_after_seconds} s")
