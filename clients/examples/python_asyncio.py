"""Several requests at a time from one event loop: python_asyncio.py, with $ROBUST_SYNTHESIS_SERVER set."""

import asyncio

from robust_synthesis.client import AsyncClient, DeadlineExceeded


async def main() -> None:
    async with AsyncClient() as client:
        classes = (await client.model()).classes[:4]
        results = await asyncio.gather(*(client.generate(name, seed=1) for name in classes))
        for name, result in zip(classes, results, strict=True):
            result.save(f"{name}.png")
            print(f"{name}: waited {result.timings.queue_wait_seconds:.2f} s of {result.seconds:.2f} s")

        try:
            await client.generate(classes[0], steps=10_000, timeout=0.5)
        except DeadlineExceeded as error:  # the server has stopped computing, too
            print(error)


asyncio.run(main())
