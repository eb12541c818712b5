"""The trainer beside another coroutine: a small status server that answers while training goes on.

python examples/embed.py        # then, from elsewhere: curl http://127.0.0.1:8421
"""

import asyncio
import json

from aiotrain import Config, Trainer
from aiotrain.cage2 import Cage2


async def serve(trainer: Trainer) -> None:
    """Answer every request on port 8421 with the state of the training, as JSON."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        status = trainer.status()
        body = json.dumps(
            {
                "episodes": status.episodes_learned,
                "episodes_per_s": round(status.episodes_per_s, 1),
                "mean_return": status.returns[-1][1] if status.returns else None,
            }
        )
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 8421)
    async with server:
        await server.serve_forever()


async def main() -> None:
    """Train on CAGE 2 and serve; the server ends with the training."""
    config = Config(env=Cage2(), workers=8, total_episodes=2_000, episodes_per_update=50)
    async with Trainer(config) as trainer:
        serving = asyncio.create_task(serve(trainer))
        async for update in trainer:
            print(f"{update.episodes:5.0f} episodes, mean return {update.mean_return:8.1f}")
        serving.cancel()


asyncio.run(main())
