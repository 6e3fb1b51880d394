"""A picture while it is made: python_streaming.py [CLASS], with $ROBUST_SYNTHESIS_SERVER set."""

import sys

from robust_synthesis.client import Client, Progress, Queued

with Client() as client:
    target = sys.argv[1] if len(sys.argv) > 1 else client.model().classes[0]
    with client.stream.generate(target, steps=400, previews=True) as events:
        for event in events:
            if isinstance(event, Queued):
                print(f"{event.position} ahead, about {event.estimated_wait_seconds:.0f} s")
            elif isinstance(event, Progress):
                print(f"step {event.step} of {event.steps}: {target} {event.probability:.2f}")
                if event.preview is not None:
                    event.preview.save("preview.png")
            else:
                event.save("streamed.png")
                print(f"done in {event.seconds:.2f} s")

    with client.stream.generate(target, steps=10_000) as events:
        for event in events:
            if isinstance(event, Progress):
                break  # leaving the block cancels the request; the server computes no further
    print("cancelled")
